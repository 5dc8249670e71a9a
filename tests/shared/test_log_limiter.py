import logging
import re
from pathlib import Path
from typing import Any

from shared.log_limiter import EVENTS, LogLimiter

ROOT = Path(__file__).parents[2]


class Log:
    """A filtered log with a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self._limiter = LogLimiter(lambda: self.now)
        self.passed: list[Any] = []

    def write(self, message: Any, logger: str = "nest", *args: Any) -> None:
        record = logging.LogRecord(logger, logging.WARNING, "", 0, message, args, None)
        if self._limiter.filter(record):
            self.passed.append(record.msg)


def test_an_outage_of_95_seconds_has_one_entry_per_interval() -> None:
    log = Log()
    for _ in range(190):
        log.write("Unable connect to node with id %s", "aiokafka.client", 1)
        log.write({"event": "bus down"})
        log.now += 0.5
    assert len(log.passed) == 4  # after 0, 10, 30 and 70 seconds
    assert log.passed[1] == "Unable connect to node with id 1 (suppressed=39)"


def test_the_limits_of_two_dependencies_are_separate() -> None:
    log = Log()
    log.write({"event": "bus down"})
    log.write({"event": "dependency unavailable"})
    assert [each["event"] for each in log.passed] == ["bus down", "dependency unavailable"]


def test_a_new_outage_has_an_entry_at_once() -> None:
    log = Log()
    for _ in range(20):
        log.write({"event": "bus down"})
        log.now += 1
    log.now += 3600
    log.write({"event": "bus down"})
    log.now += 11
    log.write({"event": "bus down"})
    assert len(log.passed) == 4


def test_other_entries_pass() -> None:
    log = Log()
    for _ in range(10):
        log.write({"event": "dead letter"})
        log.write("a line of another library", "uvicorn")
    assert len(log.passed) == 20


def sources() -> str:
    folders = ("shared", "services")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py") if file.stem != "log_limiter"]
    return "\n".join(file.read_text() for file in files)


def test_exactly_the_entries_that_an_outage_repeats_are_limited() -> None:
    code = sources()
    # A warning that names the class of an exception is about a dependency, and is logged at every attempt.
    repeated = set(re.findall(r'log\.warning\(\s*"([^"]+)",[^()]*error=type\(', code))
    assert repeated - {"stripe call failed"} <= EVENTS.keys()
    assert all(f'"{event}"' in code for event in EVENTS)
