"""Traces: spans of calls, messages and requests to dependencies, recorded only where an exporter is set.

This module imports nothing of OpenTelemetry, which takes longer to import than a service takes to start. The spans
themselves are in ``shared.spans``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self

from shared.otel_settings import TraceExport

if TYPE_CHECKING:
    from shared.bus.envelope import Envelope, Record
    from shared.spans import RecordedSpan, Spans

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACE_ID: Final = re.compile("[0-9a-f]{16}(?!0{16})[0-9a-f]{16}")
"""ID of a trace whose second half is the ID of a span."""
MAX_TRACEPARENT: Final = 512


def parse_traceparent(text: str) -> str | None:
    """Return a trace context in the form of version 00, or None if it is malformed.

    https://www.w3.org/TR/trace-context/#traceparent-header: a later version may have further fields, which are dropped.
    """
    match = _TRACEPARENT.fullmatch(text) if len(text) <= MAX_TRACEPARENT else None
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    return f"00-{match[2]}-{match[3]}-{match[4]}"


def new_traceparent() -> str:
    """Return the context of a new trace of which nothing is recorded; its ID is in the logs."""
    return unrecorded_traceparent(f"{random.getrandbits(128) | 1:032x}")


def unrecorded_traceparent(trace_id: str) -> str:
    """Return the context of such a trace; empty if the text is no trace ID."""
    return f"00-{trace_id}-{trace_id[16:]}-00" if _TRACE_ID.fullmatch(trace_id) else ""


class Span:
    """A span that ends with its block. This one records nothing; ``shared.spans`` has the others.

    Attributes:
        traceparent: context for what happens within it; empty if nothing is recorded.
    """

    traceparent: str = ""

    def __enter__(self) -> Self:
        """Make it the parent of spans that begin within the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it; an exception makes it a failure."""

    def fail(self, error_type: str) -> None:
        """Mark it as failed; ``error_type`` is a word of few values, never a message."""

    def responded(self, status: int) -> None:
        """Set the status of the HTTP response."""

    def follow(self, traceparent: str) -> None:
        """Link it to another span."""

    def routed(self, verb: str, route: str | None) -> None:
        """Set the route of an HTTP request."""

    def handled(self, outcome: str) -> None:
        """Set the outcome of a message."""

    def traced(self, headers: Sequence[tuple[str, bytes]]) -> Sequence[tuple[str, bytes]]:
        """Return the headers of a raw record with the context of its sending."""
        return headers

    def acknowledged(self, partition: int, offset: int) -> None:
        """Set where Kafka has stored a record."""


class Sending:
    """The spans of messages that are sent together. This one records nothing."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all of them; an exception makes them failures."""

    def trace(self, index: int, message: Envelope) -> str:  # noqa: ARG002 -- for the subclass
        """Return the context for the record of a message."""
        return message.trace or new_traceparent()

    def acknowledged(self, index: int, partition: int, offset: int) -> None:
        """Set where Kafka has stored a message."""


NO_SPAN: Final = Span()
_NO_SENDING: Final = Sending()
ACTIVE: Final[ContextVar[RecordedSpan | None]] = ContextVar("active_span", default=None)
"""The span that encloses what this task does."""


class Tracing:
    """The spans of one service in one process.

    Args:
        service: its name.
        export: where spans are sent; without an exporter nothing is recorded, and nothing of OpenTelemetry is imported.
        environment: kind of deployment.
        instance: name of the process; empty for a random one.
    """

    def __init__(self, service: str, export: TraceExport, *, environment: str = "", instance: str = "") -> None:
        self._spans: Spans | None = None
        if export.exporter != "none":
            from shared.spans import Spans  # noqa: PLC0415 -- see the module's docstring

            self._spans = Spans(service, export, environment=environment, instance=instance)

    @property
    def on(self) -> bool:
        """Whether spans are recorded."""
        return self._spans is not None

    def server(self, verb: str, *, version: str, scheme: str, server: str, remote: str | None, trusted: bool) -> Span:
        """Return the span of an HTTP request.

        Args:
            verb: HTTP method.
            version: of HTTP.
            scheme: of the URL that the client used.
            server: host and port that the client used.
            remote: trace context of the client; None for none.
            trusted: whether it is the parent; otherwise the span begins a trace and is linked to it.
        """
        if self._spans is None:
            return NO_SPAN
        return self._spans.server(verb, version, scheme, server, remote=remote, trusted=trusted)

    def process(self, envelope: Envelope, record: Record, *, topic: str, group: str, client: str) -> Span:
        """Return the span of a message that is handled.

        Args:
            envelope: the message.
            record: its record.
            topic: with the deployment's prefix.
            group: consumer group.
            client: name of this consumer.
        """
        if self._spans is None:
            return NO_SPAN
        return self._spans.process(envelope, record, topic=topic, group=group, client=client)

    def sending(self, messages: Sequence[Envelope], *, prefix: str, client: str, server: str) -> Sending:
        """Return the spans of messages that are sent; ``prefix`` is that of topics, ``server`` a broker."""
        if self._spans is None:
            return _NO_SENDING
        return self._spans.sending(messages, prefix=prefix, client=client, server=server)

    def mongo_listeners(self) -> list[Any]:
        """Return pymongo's listeners that record the commands of a client."""
        if self._spans is None:
            return []
        from shared.mongo_spans import MongoSpans  # noqa: PLC0415 -- imports OpenTelemetry

        return [MongoSpans()]

    def stop(self) -> None:
        """Export the remaining spans."""
        if self._spans is not None:
            self._spans.stop()


def active_span() -> RecordedSpan | None:
    """Return the span that encloses what this task does, for work that another task does for it."""
    return ACTIVE.get()


def batch_span(name: str, members: Sequence[RecordedSpan | None], attribute: str) -> Span:
    """Return the span of work that is done for several messages at once; it belongs to the first one.

    Args:
        name: of the work.
        members: spans of the messages; the span is linked to all but the first.
        attribute: has their number.
    """
    recorded = [each for each in members if each is not None and each.recording]
    if not recorded:
        # This task may have begun within the span of another message.
        return _Outside()
    return recorded[0].spans.batch(name, recorded, len(members), attribute)


class _Outside(Span):
    """No span: what happens within the block belongs to no message."""

    def __enter__(self) -> Self:
        self._token = ACTIVE.set(None)
        return self

    def __exit__(self, *_: object) -> None:
        ACTIVE.reset(self._token)


def http_request(verb: str, url: str, *, attempt: int = 1) -> Span:
    """Return the span of a request to a vendor, within the span of a message or call.

    Args:
        verb: HTTP method.
        url: its path is recorded with ``REDACTED`` in place of IDs, and its query is not.
        attempt: from 1.
    """
    active = ACTIVE.get()
    return NO_SPAN if active is None or not active.recording else active.spans.http_request(active, verb, url, attempt)


def smtp_mail(host: str, port: int) -> Span:
    """Return the span of one attempt to send a mail, within the span of a message."""
    active = ACTIVE.get()
    return NO_SPAN if active is None or not active.recording else active.spans.smtp_mail(active, host, port)


def record_sending(topic: str, headers: Sequence[tuple[str, bytes]], *, client: str, server: str) -> Span:
    """Return the span of a raw record that is sent within the span of a message; ``topic`` has the prefix."""
    active = ACTIVE.get()
    if active is None or not active.recording:
        return NO_SPAN
    return active.spans.record_sending(active, topic, headers, client=client, server=server)
