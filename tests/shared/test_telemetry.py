import json
import subprocess
import sys
from collections.abc import Sequence

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from pydantic import SecretStr, ValidationError

from shared.messages.mailer.mails import SendMail
from shared.telemetry import Tracing, new_traceparent

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


def logged(*, console: bool) -> list[str]:
    # In a process of its own, because logging is configured once per process.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(console=console)], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


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


def test_without_an_endpoint_a_span_passes_the_context_on() -> None:
    context = new_traceparent()
    tracing = Tracing("auth", None)
    with tracing.span("auth.get-user", context) as inner:
        assert inner == context
    tracing.stop()


def test_a_span_continues_the_given_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[ReadableSpan] = []

    def export(_: OTLPSpanExporter, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        exported.extend(spans)
        return SpanExportResult.SUCCESS

    monkeypatch.setattr(OTLPSpanExporter, "export", export)
    tracing = Tracing("auth", SecretStr("http://127.0.0.1:9/v1/traces"))
    context = new_traceparent()
    with tracing.span("auth.get-user", context) as inner:
        assert inner.split("-")[1] == context.split("-")[1]
        assert inner != context
    tracing.stop()
    (span,) = exported
    assert span.name == "auth.get-user"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == context.split("-")[2]
