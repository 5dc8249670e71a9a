"""Message envelope: a message with its Kafka headers, written and read in this module alone.

Every header is UTF-8. A record with a header that is not UTF-8, or without a required header, was not written by Nest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic import ValidationError

from shared.messages import ANONYMOUS, Caller, Event, Message
from shared.sealing import Sealer
from shared.tracing import unrecorded_traceparent

MAX_BODY_BYTES: Final = 512 * 1024
"""Maximum size of a message body. The gateway accepts at most 64 KiB; Stripe's events are well below this limit."""
MAX_DIGITS: Final = 18
MAC: Final = "mac"
"""First header of a record: its MAC, ``<key ID>.<64 hex characters>``. See ``shared.bus.record_macs``."""
REPLAY_TIME: Final = "replay-time"
"""Replay header: Unix milliseconds when an operator ordered a message to be handled that is older than the inbox."""
HANDLING_TIME: Final = "handling-time"
"""Header of a reply: milliseconds from the beginning of the message's delivery to the reply."""
_ROW_FIELDS: Final = ("id", "topic", "key", "body", "time", "trace", "forwarded")
"""Attributes that rows contain under their own names."""
MAX_REQUEST_ID: Final = 128


class Undecodable(Exception):
    """The record is not a message of Nest. The text gives the reason and never quotes the body."""


class Record(Protocol):
    """The attributes of a Kafka record that Nest reads."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True, kw_only=True)
class Envelope:
    """A message on the bus, its body as bytes.

    Attributes:
        id: message ID, 32 hex characters; the same at every delivery.
        wire: wire name of the message class.
        topic: topic without the deployment's prefix.
        key: ordering key; if empty, the message ID orders it.
        body: JSON of the message.
        time: when it was first published, Unix milliseconds.
        caller: the caller as verified by the gateway.
        trace: W3C ``traceparent``; empty for none.
        request: ID of the HTTP request that caused it, for logs; empty for none.
        deadline: Unix milliseconds after which the caller has timed out; 0 for none.
        reply_to: partition of ``gateway.replies`` that the reply is sent to; None if no reply is expected.
        reply_id: ID of the reply: this message's own ID, or another one if the call has an idempotency key or the
            message was forwarded.
        fingerprint: keyed hash of the client's request, which detects a reused idempotency key. If empty, the body is
            hashed instead.
        forwarded: True if it takes the reply address of the message that it follows from.
        replayed_at: when an operator forced the replay of a message older than the inbox, Unix milliseconds; else 0.
        delivery_began: when this process began to deliver it, monotonic seconds; else 0.
    """

    id: str
    wire: str
    topic: str
    key: str
    body: bytes
    time: int
    caller: Caller = ANONYMOUS
    trace: str = ""
    request: str = ""
    deadline: int = 0
    reply_to: int | None = None
    reply_id: str = ""
    fingerprint: str = ""
    forwarded: bool = False
    replayed_at: int = 0
    delivery_began: float = 0.0

    @property
    def request_id(self) -> str:
        """ID of the HTTP request, for logs."""
        return self.request

    @property
    def trace_id(self) -> str:
        """ID of the trace, for logs: 32 hex characters, or empty."""
        return self.trace[3:35]

    @property
    def message_id(self) -> str:
        """ID of the message, for logs."""
        return self.id

    @property
    def waited_for(self) -> bool:
        """Whether a caller waits for the reply."""
        return self.reply_to is not None or self.reply_id not in ("", self.id)

    @property
    def repeatable(self) -> bool:
        """Whether a caller may repeat the message and ask for its reply again.

        The gateway sends a call without an idempotency key under a new ID, which is the ID of the reply too.
        """
        return bool(self.fingerprint) or self.reply_id != self.id

    def headers(self, trace: str | None = None) -> list[tuple[str, bytes]]:
        """Return the Kafka headers; unset ones are omitted. ``trace`` is the context of the sending, if it has one."""
        trace = self.trace if trace is None else trace
        headers = [("type", self.wire.encode()), ("id", self.id.encode()), ("time", b"%d" % self.time)]
        if self.caller.kind != "anonymous" or self.caller.client_ip is not None:
            headers.append(("caller", self.caller.model_dump_json(exclude_defaults=True).encode()))
        # Usually the ID of the request is that of a trace of which nothing is recorded.
        if trace and trace != unrecorded_traceparent(self.request):
            headers.append(("traceparent", trace.encode()))
        if self.request:
            headers.append(("request-id", self.request.encode()))
        if self.deadline:
            headers.append(("deadline", b"%d" % self.deadline))
        if self.reply_to is not None:
            headers.append(("reply-to", b"%d" % self.reply_to))
            if self.reply_id != self.id:
                headers.append(("reply-id", self.reply_id.encode()))
        if self.fingerprint:
            headers.append(("fingerprint", self.fingerprint.encode()))
        return headers

    @classmethod
    def of(cls, record: Record, topic: str) -> Envelope:
        """Parse any Kafka record; its topic is given without the deployment's prefix.

        Raises:
            Undecodable: a header is missing or invalid, or the body is missing or larger than ``MAX_BODY_BYTES``.
        """
        try:
            headers = {name: value.decode() for name, value in record.headers}
            key = (record.key or b"").decode()
        except (UnicodeDecodeError, AttributeError) as wrong:
            raise Undecodable("a header or the key is not UTF-8") from wrong
        if record.value is None:
            raise Undecodable("the body is missing")
        if len(record.value) > MAX_BODY_BYTES:
            raise Undecodable(f"the body has {len(record.value)} bytes, more than {MAX_BODY_BYTES}")
        try:
            message_id = headers["id"]
            caller = headers.get("caller")
            reply_to = headers.get("reply-to")
            request = headers.get("request-id", "")[:MAX_REQUEST_ID]
            trace = headers.get("traceparent")
            return cls(
                id=message_id,
                wire=headers["type"],
                topic=topic,
                key=key,
                body=record.value,
                time=_number(headers["time"]),
                caller=ANONYMOUS if caller is None else Caller.model_validate_json(caller),
                trace=unrecorded_traceparent(request) if trace is None else trace,
                request=request,
                deadline=_number(headers.get("deadline", "0")),
                reply_to=None if reply_to is None else _number(reply_to),
                reply_id=headers.get("reply-id", message_id),
                fingerprint=bytes.fromhex(headers.get("fingerprint", "")).hex(),
                replayed_at=_number(headers.get(REPLAY_TIME, "0")),
            )
        except KeyError as missing:
            raise Undecodable(f"the header {missing.args[0]!r} is missing") from missing
        except (ValidationError, ValueError) as wrong:
            raise Undecodable("a header is invalid") from wrong

    def row(self) -> dict[str, Any]:
        """Return the fields of this message in an inbox row or a timer row, from which it is sent later."""
        row = {name: getattr(self, name) for name in _ROW_FIELDS}
        if self.request:
            row["request"] = self.request
        return row | {"type": self.wire, "caller": self.caller.model_dump(exclude_none=True)}

    @classmethod
    def of_row(cls, row: dict[str, Any], cause: Envelope | None = None) -> Envelope:
        """Return the message of the fields that ``row`` returned.

        ``cause`` is the message that it follows from, as delivered now; a forwarded message takes its reply address.
        """
        fields = {name: row[name] for name in _ROW_FIELDS}
        envelope = cls(
            wire=row["type"],
            caller=Caller.model_validate(row["caller"]),
            # Rows of earlier releases, and of messages that no request caused, have none.
            request=row.get("request", ""),
            **fields,
        )
        if cause is not None and envelope.forwarded:
            envelope.reply_to_caller_of(cause)
        return envelope

    def reply_to_caller_of(self, cause: Envelope) -> None:
        """Take the reply address and the deadline of ``cause``: the reply to this message is the reply to that one."""
        self.forwarded = True
        self.deadline = cause.deadline
        self.reply_to = cause.reply_to
        self.reply_id = cause.reply_id


def encode(message: Message, sealer: Sealer) -> bytes:
    """Return the body of a message: JSON with its secrets sealed for the receiving service; empty for a tombstone.

    Raises:
        ValueError: it is larger than ``MAX_BODY_BYTES``.
    """
    if type(message).tombstone:
        return b""
    context = {"seal": sealer.sealer_for(type(message).service)}
    # A tenth of an ordered mail would be fields with their defaults. Events have all fields: other programs read them.
    compact = not isinstance(message, Event)
    body = message.__pydantic_serializer__.to_json(message, context=context, exclude_defaults=compact)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a {type(message).wire} of {len(body)} bytes, more than {MAX_BODY_BYTES}")
    return body


def unix_milliseconds() -> int:
    """Return the current time as in the headers."""
    return time.time_ns() // 1_000_000


def _number(text: str) -> int:
    """Parse a natural number below 10^18, so that sums and dates of it can't overflow."""
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise ValueError("not a number of at most 18 digits")
    return int(text)
