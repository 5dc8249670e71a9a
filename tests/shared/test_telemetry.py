import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from typing import Any

import pytest
from pydantic import ValidationError

from shared.messages.mailer.mails import SendMail
from shared.telemetry import OutcomeLog, Thresholds, parse_levels

PROGRAM = """
import logging
from shared.telemetry import configure_logging, log

configure_logging("auth", console={console})

def handler(password):
    raise RuntimeError("it broke")

try:
    handler("open sesame")
except RuntimeError:
    log.exception("handler failed", id="42")
log.debug("not shown")
logging.getLogger("aiokafka").warning("theirs")
logging.getLogger("aiokafka").info("not shown")
"""


def run(program: str) -> list[str]:
    # In a process of its own, because logging is configured once per process.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


def logged(*, console: bool) -> list[str]:
    return run(PROGRAM.format(console=console))


def test_a_json_log_line_has_the_traceback_and_no_variables() -> None:
    ours, theirs = map(json.loads, logged(console=False))
    assert (ours["event"], ours["service"], ours["level"], ours["id"]) == ("handler failed", "auth", "error", "42")
    assert "RuntimeError: it broke" in ours["exception"]
    assert "sesame" not in json.dumps(ours).replace('handler(\\\\"open sesame\\\\")', "")
    assert theirs["event"] == "theirs"


def test_console_logs_have_the_traceback_and_no_variables() -> None:
    text = "\n".join(logged(console=True))
    assert "RuntimeError: it broke" in text
    assert "theirs" in text
    assert "not shown" not in text
    assert "sesame" not in text.replace('handler("open sesame")', "")


def test_a_validation_error_does_not_quote_the_input() -> None:
    with pytest.raises(ValidationError) as caught:
        SendMail.model_validate_json(b'{"template": "open sesame", "to": 1, "variables": "{}"}')
    assert "sesame" not in str(caught.value)


LEVELS = """
import logging
from types import SimpleNamespace
from shared.telemetry import CORRELATION, configure_logging, log, parse_levels

configure_logging("auth", level="warning", levels=parse_levels("shared.bus=debug,shared.bus.inbox=error,uvicorn=info"))

def entry(module, level):
    exec(f"log.{level}('{module} {level}')", {"__name__": module, "log": log})

for module in ("services.auth.app", "shared.bus", "shared.bus.delivery", "shared.bus.inbox", "shared.business"):
    for level in ("debug", "info", "warning", "error"):
        entry(module, level)
CORRELATION.set(SimpleNamespace(request_id="r", trace_id="t", message_id="m"))
log.error("within", message_id="other")
CORRELATION.set(None)
for name in ("uvicorn.error", "pymongo"):
    for level in ("debug", "info", "warning"):
        getattr(logging.getLogger(name), level)(f"{name} {level}")
"""


def test_level_of_a_module_is_that_of_the_modules_below_it() -> None:
    entries = [json.loads(line) for line in run(LEVELS)]
    within = next(entry for entry in entries if entry["event"] == "within")
    # Of what is handled, unless the entry names another one.
    assert (within["request_id"], within["trace_id"], within["message_id"]) == ("r", "t", "other")
    entries.remove(within)
    every = ("debug", "info", "warning", "error")
    assert [entry["event"] for entry in entries] == [
        *("services.auth.app warning", "services.auth.app error"),
        *(f"{module} {level}" for module in ("shared.bus", "shared.bus.delivery") for level in every),
        *("shared.bus.inbox error", "shared.business warning", "shared.business error"),
        *("uvicorn.error info", "uvicorn.error warning", "pymongo warning"),
    ]
    assert {entry["logger"] for entry in entries} >= {"shared.bus.delivery", "uvicorn.error"}


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("", {}),
        ("shared.bus=debug", {"shared.bus": "debug"}),
        (" services.auth = info , aiokafka=error,", {"services.auth": "info", "aiokafka": "error"}),
        ("uvicorn.error=info", {"uvicorn.error": "info"}),
    ],
)
def test_levels_are_parsed(text: str, levels: dict[str, str]) -> None:
    assert parse_levels(text) == levels


@pytest.mark.parametrize(
    "text",
    [
        *("debug", "shared.bus", "shared.bus=", "=debug", "shared.bus=DEBUG", "shared.bus=trace", "shared.bus:debug"),
        *("shard.bus=debug", "shared.bus.inbocks=info", "shared.=info", "a b=info", "../x=info"),
        *("shared.bus=info,shared.bus=debug", "pymongo=debug", "stripe=debug", "aiokafka.conn=debug"),
    ],
)
def test_wrong_levels_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|names"):
        parse_levels(text)


@dataclass
class Ids:
    """IDs of a call or message."""

    trace_id: str = "0" * 32
    request_id: str = "r"
    message_id: str = "m"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Write the lines of 1,000 messages that are done, 1,000 refused ones and 1,000 of an outage; return the lines."""

    def write(*, sample: float, level: str = "info") -> list[dict[str, Any]]:
        stream = StringIO()
        for name, value in {"thresholds": Thresholds(level, {}), "stream": stream, "sampled": sample * 2**32}.items():
            monkeypatch.setattr(OutcomeLog, f"_{name}", value)
        lines = OutcomeLog("message", module="shared.bus.message_span", service="auth")
        for number in range(1000):
            ids = Ids(f"{number:016x}{number * 4294967:016x}")
            lines.write(ids, outcome="done", seconds=0.0123, type="t")
            lines.write(ids, outcome="user_not_found", seconds=0.0123, type="t")
        for _ in range(1000):
            lines.write(Ids(), outcome="unavailable", seconds=1, outage=True, type="t")
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    return write


@pytest.mark.parametrize(("sample", "expected"), [(1, 1000), (0.1, 100), (0, 0)])
def test_lines_are_sampled_by_trace_and_refusals_always_have_one(
    written: Callable[..., list[dict[str, Any]]], sample: float, expected: int
) -> None:
    counts = Counter(entry["outcome"] for entry in written(sample=sample))
    assert abs(counts["done"] - expected) <= 1
    assert counts["user_not_found"] == 1000
    # An outage has as many lines as it may have at once, and a few more per second.
    assert 20 <= counts["unavailable"] <= 60


def test_line_names_type_outcome_duration_and_ids(written: Callable[..., list[dict[str, Any]]]) -> None:
    entry = written(sample=1)[0]
    assert datetime.fromisoformat(entry.pop("timestamp")).tzinfo is not None
    assert entry == {
        "event": "message",
        "level": "info",
        "service": "auth",
        "logger": "shared.bus.message_span",
        "type": "t",
        "outcome": "done",
        "ms": 12.3,
        "request_id": "r",
        "trace_id": "0" * 32,
        "message_id": "m",
    }


def test_lines_follow_the_level(written: Callable[..., list[dict[str, Any]]]) -> None:
    assert written(sample=1, level="warning") == []
