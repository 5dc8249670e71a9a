"""Telemetry: logs as JSON lines, traces for OpenTelemetry. Metrics are in ``shared.metrics``.

No secrets are logged: handlers log IDs, the bus logs headers and reasons, and no code logs bodies.
"""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from pydantic import SecretStr

from shared.log_limiter import LogLimiter

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
