"""Telemetry: logs as JSON lines, metrics for Prometheus, traces for OpenTelemetry.

No secrets are logged: handlers log IDs, the bus logs headers and reasons, and no code logs bodies.
"""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge, Histogram
from pydantic import SecretStr

from shared.log_limiter import LogLimiter

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

MESSAGES_HANDLED: Final = Counter(
    "nest_messages_handled", "Messages that have reached an outcome.", ["service", "type", "outcome"]
)
MESSAGE_SECONDS: Final = Histogram(
    "nest_message_seconds",
    "Time from fetching a message to the last acknowledgement of its messages.",
    ["service", "type"],
    buckets=_BUCKETS,
)
IN_FLIGHT: Final = Gauge("nest_messages_in_flight", "Messages fetched and not finished.", ["service"])
OLDEST: Final = Gauge(
    "nest_oldest_message_seconds", "Age of the oldest message that is fetched and not finished.", ["service"]
)
RETRIES: Final = Counter("nest_message_retries", "Failed attempts that were repeated.", ["service", "type"])
DEAD_LETTERS: Final = Counter("nest_dead_letters", "Messages that were dead-lettered.", ["service", "reason"])
COMMITS: Final = Histogram(
    "nest_commit_messages", "Number of messages in one commit.", ["service"], buckets=(1, 2, 4, 8, 16, 32, 64)
)
REPLIES_LOST: Final = Counter("nest_replies_lost", "Replies that could not be sent in time.", ["service"])
LAG: Final = Gauge("nest_consumer_lag_records", "Records that a service has not handled yet.", ["service"])
LAG_SECONDS: Final = Gauge(
    "nest_consumer_lag_seconds", "Age of the oldest record that a service has not handled yet.", ["service"]
)
UNREAD_EXPIRED: Final = Gauge(
    "nest_consumer_lag_expired_records", "Records that expired unread while a service is away.", ["service"]
)
EXPIRED: Final = Counter(
    "nest_records_expired", "Records that Kafka deleted before the service read them.", ["service", "topic"]
)
REPUBLISHED: Final = Counter(
    "nest_messages_republished", "Messages sent again after their records expired unread.", ["service", "topic"]
)
TIMERS_DUE: Final = Counter("nest_timers_published", "Delayed messages that were sent when due.", ["service"])

log: structlog.stdlib.BoundLogger = structlog.get_logger("nest")


def configure_logging(service: str, *, level: str = "info", console: bool = False) -> None:
    """Log to standard error, one JSON object per line or, with ``console``, as coloured text.

    Nest logs from ``level`` on, libraries from level warning on. Every entry names the service. Entries that an outage
    repeats are limited to one per dependency and ten seconds.
    """
    shared_processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
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
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared_processors,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(LogLimiter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("nest").setLevel(getattr(logging, level.upper()))
    structlog.contextvars.bind_contextvars(service=service)


def _unchanged(_logger: Any, _name: str, event: dict[str, Any]) -> dict[str, Any]:
    return event


def new_traceparent() -> str:
    """Return a new, sampled W3C trace context (https://www.w3.org/TR/trace-context/)."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


class Tracing:
    """Spans around messages and requests, exported to an OTLP receiver; without its URL they cost nothing."""

    def __init__(self, service: str, endpoint: SecretStr | None) -> None:
        self._tracer: Any = None
        self._provider: Any = None
        if endpoint is not None:
            self._start(service, endpoint)

    def _start(self, service: str, endpoint: SecretStr) -> None:
        # Imported only if needed: the SDK takes longer to import than a service takes to start.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._provider = TracerProvider(resource=Resource.create({"service.name": f"nest-{service}"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint.get_secret_value())))
        self._tracer = self._provider.get_tracer("nest")

    @contextmanager
    def span(self, name: str, traceparent: str) -> Iterator[str]:
        """Record a span in a trace context and yield the context for messages sent within it."""
        if self._tracer is None:
            yield traceparent
            return
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        propagator = TraceContextTextMapPropagator()
        parent = propagator.extract({"traceparent": traceparent})
        with self._tracer.start_as_current_span(name, context=parent):
            carrier: dict[str, str] = {}
            propagator.inject(carrier)
            yield carrier.get("traceparent", traceparent)

    def stop(self) -> None:
        """Export the remaining spans."""
        if self._provider is not None:
            self._provider.shutdown()
