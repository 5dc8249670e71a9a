"""What travels beside a message's body: its headers on Kafka, written and read in one place.

All headers are UTF-8. A record with a header that isn't, or lacking one that is needed, was not written by Nest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pydantic import ValidationError

from shared.dead_letters.records import REPLAY_TIME
from shared.messages import ANONYMOUS, Caller, Message
from shared.sealing import Sealer

MAX_BODY_BYTES: Final = 512 * 1024
"""No message of ours is larger; the gateway takes at most 64 KiB, Stripe's events stay well below this."""
MAX_DIGITS: Final = 18


class Undecodable(Exception):
    """The record is not one of our messages; its text says why and never holds the body."""


class Record(Protocol):
    """What we read of a Kafka record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True, kw_only=True)
class Envelope:
    """One message on the bus, its body still as bytes.

    Attributes:
        id: 32 hex characters; the same for every copy of one message.
        wire: the message's wire name.
        topic: without the deployment's prefix.
        key: what orders it; empty for its own id.
        body: the JSON of the message.
        time: when it was first put on the bus, Unix milliseconds.
        caller: who asked.
        trace: W3C ``traceparent``, empty for none.
        deadline: Unix milliseconds after which nobody waits for the answer; 0 for never.
        reply_to: the partition of ``gateway.replies`` that waits for the answer; None when nobody does.
        reply_id: the id the answer goes out under: this message's own, or the one it was forwarded from.
        fingerprint: a keyed hash of what the client sent; tells a reused idempotency key. Empty: the body is hashed.
        forwarded: it takes its reply address from whatever message it follows from.
        replayed_at: when an operator ordered it to be handled although it is too old, Unix milliseconds; else 0.
    """

    id: str
    wire: str
    topic: str
    key: str
    body: bytes
    time: int
    caller: Caller = ANONYMOUS
    trace: str = ""
    deadline: int = 0
    reply_to: int | None = None
    reply_id: str = ""
    fingerprint: str = ""
    forwarded: bool = field(default=False)
    replayed_at: int = 0

    def headers(self) -> list[tuple[str, bytes]]:
        """The Kafka headers; unset ones are left out."""
        headers = [("type", self.wire.encode()), ("id", self.id.encode()), ("time", b"%d" % self.time)]
        if self.caller.kind != "anonymous" or self.caller.client_ip is not None:
            headers.append(("caller", self.caller.model_dump_json(exclude_none=True).encode()))
        if self.trace:
            headers.append(("traceparent", self.trace.encode()))
        if self.deadline:
            headers.append(("deadline", b"%d" % self.deadline))
        if self.reply_to is not None:
            headers.append(("reply-to", b"%d" % self.reply_to))
            headers.append(("reply-id", self.reply_id.encode()))
        if self.fingerprint:
            headers.append(("fingerprint", self.fingerprint.encode()))
        return headers

    @classmethod
    def of(cls, record: Record, topic: str) -> Envelope:
        """Read a record.

        Args:
            record: any record at all.
            topic: its topic without the deployment's prefix.

        Raises:
            Undecodable: a header is missing or not what ``headers`` writes, or there is no body, or too much.
        """
        try:
            headers = {name: value.decode() for name, value in record.headers}
            key = (record.key or b"").decode()
        except (UnicodeDecodeError, AttributeError) as wrong:
            raise Undecodable("a header or the key is not UTF-8") from wrong
        if record.value is None:
            raise Undecodable("there is no body")
        if len(record.value) > MAX_BODY_BYTES:
            raise Undecodable(f"the body has {len(record.value)} bytes, more than {MAX_BODY_BYTES}")
        try:
            message_id = headers["id"]
            caller = headers.get("caller")
            reply_to = headers.get("reply-to")
            return cls(
                id=message_id,
                wire=headers["type"],
                topic=topic,
                key=key,
                body=record.value,
                time=_number(headers["time"]),
                caller=ANONYMOUS if caller is None else Caller.model_validate_json(caller),
                trace=headers.get("traceparent", ""),
                deadline=_number(headers.get("deadline", "0")),
                reply_to=None if reply_to is None else _number(reply_to),
                reply_id=headers.get("reply-id", message_id),
                fingerprint=bytes.fromhex(headers.get("fingerprint", "")).hex(),
                replayed_at=_number(headers.get(REPLAY_TIME, "0")),
            )
        except KeyError as missing:
            raise Undecodable(f"the header {missing.args[0]!r} is missing") from missing
        except (ValidationError, ValueError) as wrong:
            raise Undecodable("a header has a wrong shape") from wrong

    def row(self) -> dict[str, Any]:
        """What an inbox or a timer row keeps of a message that is still to be published."""
        return {
            "id": self.id,
            "type": self.wire,
            "topic": self.topic,
            "key": self.key,
            "body": self.body,
            "time": self.time,
            "caller": self.caller.model_dump(exclude_none=True),
            "trace": self.trace,
            "forwarded": self.forwarded,
        }

    @classmethod
    def of_row(cls, row: dict[str, Any], cause: Envelope | None = None) -> Envelope:
        """The message that ``row`` kept; a forwarded one answers whoever waits for ``cause`` now."""
        envelope = cls(
            id=row["id"],
            wire=row["type"],
            topic=row["topic"],
            key=row["key"],
            body=row["body"],
            time=row["time"],
            caller=Caller.model_validate(row["caller"]),
            trace=row["trace"],
            forwarded=row["forwarded"],
        )
        if cause is not None and envelope.forwarded:
            envelope.reply_to_caller_of(cause)
        return envelope

    def reply_to_caller_of(self, cause: Envelope) -> None:
        """Take over the reply address of ``cause``, so that the answer to this message answers that one."""
        self.forwarded = True
        self.deadline = cause.deadline
        self.reply_to = cause.reply_to
        self.reply_id = cause.reply_id


def _number(text: str) -> int:
    """A natural number below 10^18, which any clock and any loop can reckon with."""
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise ValueError("not a number that we write")
    return int(text)


def unix_milliseconds() -> int:
    """The wall clock, as headers carry it."""
    return time.time_ns() // 1_000_000


def encode(message: Message, sealer: Sealer) -> bytes:
    """The body of a message: JSON, its secret fields sealed for the service that receives it; a tombstone has none.

    Raises:
        ValueError: it is larger than readers take.
    """
    if type(message).tombstone:
        return b""
    context = {"seal": sealer.sealer_for(type(message).service)}
    body = message.__pydantic_serializer__.to_json(message, context=context)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a {type(message).wire} of {len(body)} bytes, more than {MAX_BODY_BYTES}")
    return body


def address_ordering_key(address: str, sealer: Sealer) -> str:
    """The same 64 hex characters for an address however it is written; others once the sealing key is replaced."""
    return sealer.fingerprint(b"e-mail address", address.strip().lower().encode("utf-8", "surrogatepass"))
