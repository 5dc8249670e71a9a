"""Logs: one JSON object per line, with levels by module, and one line per call and message.

Metrics are in ``shared.metrics``, traces in ``shared.tracing``. No secrets are logged: handlers log IDs, the bus logs
headers and reasons, and no code logs bodies.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, ClassVar, Final, Protocol, TextIO

import structlog

from shared.log_limiter import LogLimiter

LEVELS: Final = ("debug", "info", "warning", "error")
_OWN: Final = frozenset({"services", "shared"})
"""Packages of Nest."""
OUTAGE_LINES_PER_SECOND: Final = 5.0
OUTAGE_LINES_AT_ONCE: Final = 20
"""Lines about calls and messages that an outage or overload refuses; the others are counted in ``suppressed``."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("nest")


class Correlation(Protocol):
    """The IDs of the call or message that is being handled; empty for none."""

    @property
    def request_id(self) -> str:
        """ID of the HTTP request, as in ``x-request-id``."""

    @property
    def trace_id(self) -> str:
        """ID of the trace, 32 hex characters."""

    @property
    def message_id(self) -> str:
        """ID of the message."""


CORRELATION: Final[ContextVar[Correlation | None]] = ContextVar("correlation", default=None)
"""Its IDs are in every entry that is logged meanwhile."""


def parse_levels(text: str) -> dict[str, str]:
    """Parse ``module=level`` separated by commas: ``shared.bus=debug,aiokafka=info``.

    A module is one of Nest, such as ``services.auth``, or a library's logger; its level is that of all modules below it
    too. Libraries may not have the level debug, at which they log whole requests, with the secrets in them.

    Raises:
        ValueError: the text has another form, names a module that does not exist, or one twice.
    """
    levels: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        module, equals, level = (each.strip() for each in part.partition("="))
        if not equals or level not in LEVELS:
            raise ValueError(f"must be module=level, separated by commas; levels are {', '.join(LEVELS)}")
        if module in levels:
            raise ValueError(f"names {module} twice")
        if not _exists(module):
            raise ValueError("names a module that does not exist")
        if level == "debug" and module.partition(".")[0] not in _OWN:
            raise ValueError(f"must not set {module} to debug: libraries log secrets at that level")
        levels[module] = level
    return levels


def _exists(module: str) -> bool:
    package = module.partition(".")[0]
    if not all(part.isidentifier() for part in module.split(".")):
        return False
    try:
        # Loggers below a library's need not be modules.
        return find_spec(module if package in _OWN else package) is not None
    except ModuleNotFoundError:
        return False


class _ModuleLogger(structlog.BoundLoggerBase):
    """Logger that takes its level and its name from the module that calls it."""

    thresholds: ClassVar[Thresholds]

    def debug(self, event: str, **fields: Any) -> None:
        self._log("debug", logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._log("info", logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._log("warning", logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._log("error", logging.ERROR, event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        self._log("critical", logging.CRITICAL, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        self._log("error", logging.ERROR, event, {"exc_info": True, **fields})

    def _log(self, method: str, level: int, event: str, fields: dict[str, Any]) -> None:
        module = sys._getframe(2).f_globals["__name__"]  # noqa: SLF001 -- logging does the same
        if level >= self.thresholds.of(module):
            self._proxy_to_logger(method, event, **{"logger": module, **fields})


class Thresholds:
    """Lowest level that is logged, by module."""

    def __init__(self, level: str, levels: Mapping[str, str]) -> None:
        self.default = getattr(logging, level.upper())
        self.levels = {module: getattr(logging, name.upper()) for module, name in levels.items()}
        self._known: dict[str, int] = {}

    def of(self, module: str) -> int:
        """Return the level of the longest of the names that the module is, or is below."""
        known = self._known.get(module)
        if known is None:
            name = module
            while name and name not in self.levels:
                name = name.rpartition(".")[0]
            known = self._known[module] = self.levels.get(name, self.default)
        return known


def configure_logging(
    service: str,
    *,
    level: str = "info",
    levels: Mapping[str, str] | None = None,
    console: bool = False,
    sample: float = 0.0,
) -> None:
    """Log to standard error, one JSON object per line or, with ``console``, as coloured text.

    Every entry names the service and the module. Entries that an outage repeats are limited to one per dependency and
    ten seconds.

    Args:
        service: its name.
        level: lowest level of Nest's entries; libraries log from level warning on.
        levels: levels of modules, as ``parse_levels`` returns them.
        console: write coloured text for people.
        sample: ratio of the calls and messages that have a line, besides refused and failed ones.
    """
    thresholds = Thresholds(level, levels or {})
    shared_processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_correlation,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if not console else _unchanged,
    ]
    # Plain: a rich traceback shows the variables of every frame, which may be secrets, and takes half a second.
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared_processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=type("ModuleLogger", (_ModuleLogger,), {"thresholds": thresholds}),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared_processors, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(LogLimiter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for module, number in thresholds.levels.items():
        logging.getLogger(module).setLevel(number)
    # Each entry was compared with its module's level before.
    logging.getLogger("nest").setLevel(logging.DEBUG)
    structlog.contextvars.bind_contextvars(service=service)
    OutcomeLog.configure(thresholds, sample=sample, stream=None if console else sys.stderr)


def _unchanged(_logger: Any, _name: str, event: dict[str, Any]) -> dict[str, Any]:
    return event


def _add_correlation(_logger: Any, _name: str, event: dict[str, Any]) -> dict[str, Any]:
    """Add the IDs of the call or message that is being handled, unless the entry has other ones."""
    current = CORRELATION.get()
    if current is not None:
        for name in _IDS:
            if value := getattr(current, name):
                event.setdefault(name, value)
    return event


class OutcomeLog:
    """Writes one line at level info for each call or message that has an outcome.

    Refusals and failures always have a line, except that an outage or overload has at most
    ``OUTAGE_LINES_PER_SECOND``. The others are sampled by their trace, so that all lines of one login are written, or
    none. Lines are written only after ``configure_logging``.

    Args:
        event: the entry's text: ``call`` or ``message``.
        module: whose level decides.
        service: named in each line.
    """

    _thresholds: ClassVar[Thresholds | None] = None
    _stream: ClassVar[TextIO | None] = None
    _sampled: ClassVar[int] = 0
    """Of 2^32."""

    def __init__(self, event: str, *, module: str, service: str) -> None:
        self._event = event
        self._module = module
        self._service = service
        self._allowed, self._refilled, self._suppressed = float(OUTAGE_LINES_AT_ONCE), time.monotonic(), 0

    @classmethod
    def configure(cls, thresholds: Thresholds, *, sample: float, stream: TextIO | None) -> None:
        """Set what is written by all: ``sample`` as for ``configure_logging``; no stream for text for people."""
        cls._thresholds, cls._stream, cls._sampled = thresholds, stream, round(sample * 2**32)

    def write(self, ids: Correlation, *, outcome: str, seconds: float, outage: bool = False, **fields: Any) -> None:
        """Write the line of a call or message, unless it is not sampled.

        Args:
            ids: of the call or message.
            outcome: ``done``, or the code of its refusal or failure.
            seconds: its duration.
            outage: whether an outage or overload is the reason of the refusal.
            fields: further ones of the line.
        """
        thresholds = self._thresholds
        if thresholds is None or thresholds.of(self._module) > logging.INFO:
            return
        if outcome == "done":
            # The last characters: some systems put the time at the beginning of a trace ID.
            if int(ids.trace_id[-8:] or "0", 16) >= self._sampled:
                return
        elif outage and not self._within_limit():
            return
        line = {**fields, "outcome": outcome, "ms": round(seconds * 1000, 1)}
        line.update({name: value for name in _IDS if (value := getattr(ids, name))})
        if self._suppressed and outage:
            line["suppressed"], self._suppressed = self._suppressed, 0
        if self._stream is None:
            log.info(self._event, **line)
        else:
            self._write_json(line)

    def _write_json(self, line: dict[str, Any]) -> None:
        # Not through structlog, which takes three times as long.
        entry = {"event": self._event, "logger": self._module, "service": self._service, "level": "info", **line}
        entry["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        assert self._stream is not None  # noqa: S101 -- the caller has checked it
        self._stream.write(_encode(entry) + "\n")
        self._stream.flush()

    def _within_limit(self) -> bool:
        now = time.monotonic()
        earned = (now - self._refilled) * OUTAGE_LINES_PER_SECOND
        self._allowed, self._refilled = min(float(OUTAGE_LINES_AT_ONCE), self._allowed + earned), now
        if self._allowed < 1:
            self._suppressed += 1
            return False
        self._allowed -= 1
        return True


_IDS: Final = ("request_id", "trace_id", "message_id")
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
