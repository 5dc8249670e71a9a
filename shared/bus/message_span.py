"""Observation of a message while it is handled: a span, one log line, and its IDs in all entries in between."""

from __future__ import annotations

import json
import time
from contextvars import Token
from typing import Final, Self

from shared.bus.envelope import Envelope, Record
from shared.bus.inbox import DONE, Outcome
from shared.errors import Kind
from shared.metrics import MESSAGE_SECONDS, labelled
from shared.telemetry import CORRELATION, Correlation, OutcomeLog
from shared.tracing import NO_SPAN, Span, Tracing

DEAD_LETTER: Final = "dead_letter"
_OUTAGES: Final = frozenset({Kind.UNAVAILABLE.value, Kind.TIMED_OUT.value, Kind.THROTTLED.value})
_FAILURES: Final = frozenset({Kind.UNAVAILABLE.value, Kind.TIMED_OUT.value, Kind.BUG.value, DEAD_LETTER})
"""Outcomes that are failures of Nest or a dependency; other refusals are final answers."""


class MessageSpans:
    """Observes the messages of one service.

    Args:
        tracing: records the spans.
        service: its name.
        prefix: of topics.
        group: consumer group.
        client: name of this consumer.
    """

    def __init__(self, tracing: Tracing, *, service: str, prefix: str, group: str, client: str) -> None:
        self.tracing = tracing
        self.service = service
        self.prefix = prefix
        self.group = group
        self.client = client
        self.lines = OutcomeLog("message", module=__name__, service=service)

    def begin(self, envelope: Envelope, record: Record) -> MessageSpan:
        """Return the observation of a message; the envelope's trace becomes that of the span."""
        return MessageSpan(self, envelope, record)


class MessageSpan:
    """Observation of one message, as a context manager around its handling."""

    __slots__ = ("_code", "_envelope", "_kind", "_record", "_span", "_spans", "_started", "_token")

    def __init__(self, spans: MessageSpans, envelope: Envelope, record: Record) -> None:
        self._spans = spans
        self._envelope = envelope
        self._record = record
        self._kind = self._code = ""
        self._span: Span = NO_SPAN
        self._started = 0.0
        self._token: Token[Correlation | None] | None = None

    def __enter__(self) -> Self:
        """Begin."""
        spans, envelope = self._spans, self._envelope
        self._started = envelope.delivery_began or time.monotonic()
        topic = spans.prefix + envelope.topic
        self._span = spans.tracing.process(
            envelope, self._record, topic=topic, group=spans.group, client=spans.client
        ).__enter__()
        envelope.trace = self._span.traceparent or envelope.trace
        self._token = CORRELATION.set(envelope)
        return self

    def finish(self, outcome: Outcome | None) -> None:
        """Set the outcome; None for a dead letter."""
        self._kind = self._code = DEAD_LETTER if outcome is None else outcome.kind
        if outcome is not None and outcome.kind != DONE and outcome.body:
            self._code = str(json.loads(outcome.body).get("code", outcome.kind))

    def __exit__(self, *raised: object) -> None:
        """End, and write the line of a message that has an outcome."""
        if self._token is not None:
            CORRELATION.reset(self._token)
        if self._kind:
            self._finished()
        self._span.__exit__(*raised)

    def _finished(self) -> None:
        spans, envelope = self._spans, self._envelope
        seconds = time.monotonic() - self._started
        labelled(MESSAGE_SECONDS, spans.service, envelope.wire).observe(seconds)
        self._span.handled(self._code)
        if self._kind in _FAILURES:
            self._span.fail(self._code)
        spans.lines.write(
            envelope, outcome=self._code, seconds=seconds, outage=self._kind in _OUTAGES, type=envelope.wire
        )
