"""Spans after OpenTelemetry's semantic conventions, version 1.44.0; imported only where traces are exported.

https://opentelemetry.io/docs/specs/semconv/. Attributes hold no personal data and no secrets: no IP address, no key of
a record, no query, no header, no path or URL with an ID in it, and no text of an exception.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextvars import Token
from importlib.metadata import version
from threading import Thread
from typing import Any, Final, Self
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv._incubating.attributes.url_attributes import URL_TEMPLATE
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_RESEND_COUNT,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import (
    NETWORK_PROTOCOL_NAME,
    NETWORK_PROTOCOL_VERSION,
    NETWORK_TRANSPORT,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL, URL_PATH, URL_SCHEME
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation import set_span_in_context

from shared.bus.envelope import Envelope, Record
from shared.otel_settings import TraceExport
from shared.trace_provider import SCHEMA, trace_provider
from shared.tracing import ACTIVE, Sending, Span, parse_traceparent

METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
OTHER: Final = "_OTHER"
STOP_SECONDS: Final = 3.0
REDACTED: Final = "REDACTED"
MESSAGE_TYPE: Final = "nest.message.type"
"""Wire name of a message. The convention has no attribute for it, and a topic carries many types."""
MESSAGE_OUTCOME: Final = "nest.message.outcome"
"""``done``, or the code of its refusal or failure."""
HTTP_SERVER_ERROR: Final = 500
HTTP_CLIENT_ERROR: Final = 400
_ROOT: Final = Context()
_WORD: Final = re.compile(
    r"v?[0-9]{1,4}(?:\.[0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}|[A-Za-z-]*[a-z](?:[a-z_-]*[a-z])?(?:\.json)?"
)
"""Segment of a path that is no ID: IDs have digits, upper case or a prefix such as ``cus_``."""
_KAFKA: Final = {messaging.MESSAGING_SYSTEM: messaging.MessagingSystemValues.KAFKA.value}
_SEND: Final = {
    **_KAFKA,
    messaging.MESSAGING_OPERATION_NAME: "send",
    messaging.MESSAGING_OPERATION_TYPE: messaging.MessagingOperationTypeValues.SEND.value,
}
_PROCESS: Final = {
    **_KAFKA,
    messaging.MESSAGING_OPERATION_NAME: "process",
    messaging.MESSAGING_OPERATION_TYPE: messaging.MessagingOperationTypeValues.PROCESS.value,
}


class RecordedSpan(Span):
    """A span of a trace, which may be sampled or not.

    Attributes:
        spans: what it was begun with.
        span: OpenTelemetry's.
        recording: whether it is sampled.
        traceparent: its context.
    """

    def __init__(self, spans: Spans, span: OtelSpan) -> None:
        self.spans = spans
        self.span = span
        self.recording = span.is_recording()
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        self.context = set_span_in_context(span, _ROOT)
        self._token: Token[RecordedSpan | None] | None = None
        self._failed = False

    def __enter__(self) -> Self:
        self._token = ACTIVE.set(self)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._token is not None:
            ACTIVE.reset(self._token)
        if isinstance(raised[1], BaseException) and not self._failed:
            self.fail(error_type_of(raised[1]))
        self.span.end()

    def fail(self, error_type: str) -> None:
        """Mark it as failed."""
        # Without a description: the text of an exception may quote personal data.
        self._failed = True
        self.span.set_attribute(ERROR_TYPE, error_type)
        self.span.set_status(Status(StatusCode.ERROR))

    def responded(self, status: int) -> None:
        """Set the status of the response."""
        self.span.set_attribute(HTTP_RESPONSE_STATUS_CODE, status)
        if status >= self._first_error:
            self.fail(str(status))

    _first_error = HTTP_SERVER_ERROR

    def follow(self, traceparent: str) -> None:
        """Link it to another span."""
        context = remote_context(traceparent)
        if context is not None:
            self.span.add_link(context)

    def routed(self, verb: str, route: str | None) -> None:
        """Set the route, which is also part of the name."""
        if self.recording and route is not None:
            self.span.update_name(f"{'HTTP' if verb not in METHODS else verb} {route}")
            # The values of a path may be passwords and tokens; its template has none.
            self.span.set_attributes({HTTP_ROUTE: route, URL_PATH: route})

    def handled(self, outcome: str) -> None:
        """Set the outcome of a message."""
        self.span.set_attribute(MESSAGE_OUTCOME, outcome)


class _ClientSpan(RecordedSpan):
    """Span of a request to a vendor, for which every 4xx is an error too."""

    _first_error = HTTP_CLIENT_ERROR


class _RecordSpan(RecordedSpan):
    """Span of a record that is sent.

    Args:
        spans: as for ``RecordedSpan``.
        span: likewise.
        creates: whether its context becomes that of the record.
    """

    def __init__(self, spans: Spans, span: OtelSpan, *, creates: bool = True) -> None:
        super().__init__(spans, span)
        self._creates = creates

    def traced(self, headers: Sequence[tuple[str, bytes]]) -> Sequence[tuple[str, bytes]]:
        """Add the context, unless the record has one."""
        return [*headers, ("traceparent", self.traceparent.encode())] if self._creates else headers

    def acknowledged(self, partition: int, offset: int) -> None:
        """Set where Kafka has stored the record."""
        self.span.set_attributes(_position(partition, offset))


class _RecordedSending(Sending):
    """Spans of messages that are sent together, each with a context of its own in its record."""

    def __init__(self, spans: Spans, messages: Sequence[Envelope], prefix: str, client: str, server: str) -> None:
        parent = ACTIVE.get()
        self._spans: list[_RecordSpan] = []
        for message in messages:
            topic = prefix + message.topic
            attributes = {
                **_SEND,
                **spans.broker(server),
                messaging.MESSAGING_DESTINATION_NAME: topic,
                messaging.MESSAGING_CLIENT_ID: client,
                messaging.MESSAGING_MESSAGE_ID: message.id,
                MESSAGE_TYPE: message.wire,
                **({} if message.body else {messaging.MESSAGING_KAFKA_MESSAGE_TOMBSTONE: True}),
            }
            # A row may be sent long after its cause: by a timer, or again after a crash.
            cause = remote_context(message.trace)
            same = parent is not None and cause is not None and parent.traceparent[3:35] == message.trace[3:35]
            span = spans.start(
                f"send {topic}",
                SpanKind.PRODUCER,
                attributes,
                _ROOT if parent is None else parent.context,
                [] if cause is None or same else [cause],
            )
            self._spans.append(_RecordSpan(spans, span))

    def __exit__(self, *raised: object) -> None:
        failure = raised[1]
        for span in self._spans:
            if isinstance(failure, BaseException):
                span.fail(error_type_of(failure.__cause__ or failure))
            span.span.end()

    def trace(self, index: int, message: Envelope) -> str:  # noqa: ARG002 -- the base's signature
        """Return the context of the message's span."""
        return self._spans[index].traceparent

    def acknowledged(self, index: int, partition: int, offset: int) -> None:
        """Set where Kafka has stored a message."""
        self._spans[index].acknowledged(partition, offset)


class Spans:
    """Begins the spans of one service and exports them; the arguments are those of ``Tracing``."""

    def __init__(self, service: str, export: TraceExport, *, environment: str, instance: str) -> None:
        self._propagates = export.propagates
        self._provider = trace_provider(service, export, environment=environment, instance=instance)
        self._tracer = self._provider.get_tracer("nest", version("nest"), SCHEMA)
        self._brokers: dict[str, dict[str, Any]] = {}

    def start(
        self,
        name: str,
        kind: SpanKind,
        attributes: dict[str, Any],
        parent: Context,
        links: Sequence[SpanContext] = (),
    ) -> OtelSpan:
        """Begin a span; ``parent`` is empty for the first of a trace."""
        return self._tracer.start_span(
            name,
            context=parent,
            kind=kind,
            attributes=attributes,
            links=[Link(each) for each in links],
            record_exception=False,
            set_status_on_exception=False,
        )

    def server(
        self, verb: str, http_version: str, scheme: str, server: str, *, remote: str | None, trusted: bool
    ) -> RecordedSpan:
        """Return a span of an HTTP server (semconv: http/http-spans, HTTP server span)."""
        known = verb in METHODS
        attributes = {
            # Not ``http.request.method_original``: anything may be sent as a method.
            HTTP_REQUEST_METHOD: verb if known else OTHER,
            URL_SCHEME: scheme,
            URL_PATH: f"/{REDACTED}",
            NETWORK_PROTOCOL_VERSION: http_version,
            **_address(server, 443 if scheme == "https" else 80),
        }
        context = None if remote is None or not self._propagates else remote_context(remote)
        parent = _ROOT if context is None or not trusted else _remote(context)
        links = [] if context is None or trusted else [context]
        return RecordedSpan(self, self.start(verb if known else "HTTP", SpanKind.SERVER, attributes, parent, links))

    def process(self, envelope: Envelope, record: Record, *, topic: str, group: str, client: str) -> RecordedSpan:
        """Return a span of a message that is processed (semconv: messaging/kafka, process span).

        The message's creation context is its parent, which the convention permits for single messages.
        """
        attributes = {
            **_PROCESS,
            **_position(record.partition, record.offset),
            messaging.MESSAGING_DESTINATION_NAME: topic,
            messaging.MESSAGING_CONSUMER_GROUP_NAME: group,
            messaging.MESSAGING_CLIENT_ID: client,
            messaging.MESSAGING_MESSAGE_ID: envelope.id,
            MESSAGE_TYPE: envelope.wire,
        }
        context = remote_context(envelope.trace) if self._propagates else None
        parent, links = (_ROOT, []) if context is None else (_remote(context), [context])
        return RecordedSpan(self, self.start(f"process {topic}", SpanKind.CONSUMER, attributes, parent, links))

    def sending(self, messages: Sequence[Envelope], *, prefix: str, client: str, server: str) -> Sending:
        """Return spans of messages that are sent (semconv: messaging/kafka, send span of a producer)."""
        return _RecordedSending(self, messages, prefix, client, server)

    def record_sending(
        self, active: RecordedSpan, topic: str, headers: Sequence[tuple[str, bytes]], *, client: str, server: str
    ) -> RecordedSpan:
        """Return a span of a raw record that is sent.

        A record with a context, as a dead letter has, keeps it: the span is a client's then, and linked to it.
        """
        own = next((value.decode("ascii", "replace") for name, value in headers if name == "traceparent"), "")
        context = remote_context(own)
        attributes = {
            **_SEND,
            **self.broker(server),
            messaging.MESSAGING_DESTINATION_NAME: topic,
            messaging.MESSAGING_CLIENT_ID: client,
        }
        kind = SpanKind.PRODUCER if context is None else SpanKind.CLIENT
        links = [] if context is None else [context]
        span = self.start(f"send {topic}", kind, attributes, active.context, links)
        return _RecordSpan(self, span, creates=context is None)

    def batch(self, name: str, members: Sequence[RecordedSpan], count: int, attribute: str) -> RecordedSpan:
        """Return a span of work that is done for several messages at once."""
        links = [each.span.get_span_context() for each in members[1:]]
        span = self.start(name, SpanKind.INTERNAL, {attribute: count}, members[0].context, links)
        return RecordedSpan(self, span)

    def http_request(self, active: RecordedSpan, verb: str, url: str, attempt: int) -> RecordedSpan:
        """Return a span of an HTTP client (semconv: http/http-spans, HTTP client span)."""
        parts = urlsplit(url)
        segments = parts.path.split("/")
        template = "/".join(each if not each or _WORD.fullmatch(each) else "{id}" for each in segments)
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        attributes = {
            HTTP_REQUEST_METHOD: verb,
            SERVER_ADDRESS: parts.hostname or "",
            SERVER_PORT: parts.port or (443 if parts.scheme == "https" else 80),
            URL_FULL: origin + template.replace("{id}", REDACTED),
            URL_TEMPLATE: template,
            **({HTTP_REQUEST_RESEND_COUNT: attempt - 1} if attempt > 1 else {}),
        }
        return _ClientSpan(self, self.start(f"{verb} {template}", SpanKind.CLIENT, attributes, active.context))

    def smtp_mail(self, active: RecordedSpan, host: str, port: int) -> RecordedSpan:
        """Return a span of one mail over SMTP, which has no convention: general attributes of networks and servers."""
        attributes = {
            NETWORK_PROTOCOL_NAME: "smtp",
            NETWORK_TRANSPORT: "tcp",
            SERVER_ADDRESS: host,
            SERVER_PORT: port,
        }
        return RecordedSpan(self, self.start("smtp send", SpanKind.CLIENT, attributes, active.context))

    def broker(self, server: str) -> dict[str, Any]:
        """Return the attributes of the first broker of a list."""
        known = self._brokers.get(server)
        if known is None:
            known = self._brokers[server] = _address(server.partition(",")[0], 9092)
        return known

    def stop(self) -> None:
        """Export the remaining spans, for at most ``STOP_SECONDS``."""
        # The SDK's own limit is longer than a process may take to stop while the receiver is away.
        stopping = Thread(target=self._provider.shutdown, daemon=True)
        stopping.start()
        stopping.join(STOP_SECONDS)


def remote_context(traceparent: str) -> SpanContext | None:
    """Return the context in a ``traceparent``; None if it is malformed."""
    valid = parse_traceparent(traceparent)
    if valid is None:
        return None
    return SpanContext(
        int(valid[3:35], 16), int(valid[36:52], 16), is_remote=True, trace_flags=TraceFlags(int(valid[53:], 16))
    )


def error_type_of(failure: BaseException) -> str:
    """Return the ``error.type`` of an exception: the name of its class."""
    return type(failure).__qualname__


def _remote(context: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(context), _ROOT)


def _position(partition: int, offset: int) -> dict[str, Any]:
    return {
        messaging.MESSAGING_DESTINATION_PARTITION_ID: str(partition),
        messaging.MESSAGING_KAFKA_OFFSET: offset,
    }


def _address(server: str, default_port: int) -> dict[str, Any]:
    """Return the attributes of ``host:port``, an IPv6 host in brackets."""
    parts = urlsplit(f"//{server}")
    return {SERVER_ADDRESS: parts.hostname or "", SERVER_PORT: parts.port or default_port}
