"""Dead-letter records: a failed record, sealed, with readable headers that give the reason.

They are kept on ``<topic>.dead`` for 30 days. An operator can replay one: the original record is put back on its topic
with one or two replay headers behind its own headers, and a MAC of the replay in front of them.

Every record is sealed, whatever its type. A record that could not be decoded may contain anything, and the headers of
any record may contain its caller's IP address.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from shared.bus.envelope import MAC, REPLAY_TIME, Record
from shared.sealing import CannotUnseal, Sealer

REASON: Final = "dead-reason"
DETAIL: Final = "dead-detail"
TRACE: Final = "dead-trace"
ATTEMPTS: Final = "dead-tries"
SOURCE: Final = "dead-source"
GROUP: Final = "dead-group"
TIME: Final = "dead-time"
SEALED: Final = "dead-sealed"
DEAD_LETTER_HEADERS: Final = frozenset({REASON, DETAIL, TRACE, ATTEMPTS, SOURCE, GROUP, TIME, SEALED})
"""Headers of a dead letter."""
SEALED_RECORD: Final = b"1"
"""Value of the header ``dead-sealed``: the body is the original key, value and headers, packed, compressed, sealed."""
RECEIVER: Final = "dead-letters"
"""Receiver that dead letters are sealed for. It is not a service: only the operators' queue unseals them."""
DETAIL_BYTES: Final = 1_000

Headers = tuple[tuple[str, bytes], ...]
"""Kafka headers: ordered, names may repeat. Foreign clients may write a null value; it is preserved."""
REPLAY_FOR: Final = "replay-for"
"""Replay header: the consumer group that dead-lettered the record; other groups skip the replay. Always the last header
of a record, so that the check is cheap."""
REPLAY_MAC: Final = "replay-mac"
"""Replay header: the MAC of the replayed record, replay headers included. It is in front of the original MAC."""
REPLAY_HEADERS: Final = frozenset({REPLAY_TIME, REPLAY_FOR, REPLAY_MAC})
"""Headers that a replay adds. They are removed if the record is dead-lettered again."""

_MAX_DIGITS: Final = 18
_MAX_DATETIME_MILLISECONDS: Final = 253_402_300_799_999


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A dead letter to be written to Kafka: the failed record, sealed, with the reason in plain headers.

    The key is a deduplication key. Compaction keeps one dead letter per failed record; a tombstone deletes it.
    """

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter read from Kafka.

    Attributes:
        topic: source topic without the deployment's prefix.
        offset: offset on ``<topic>.dead``.
        dedup_key: identifies the failed record, its source and its consumer group. A crash or a lost acknowledgement
            may leave two dead letters for one failure; both have the same key.
        reason: ``undecodable``, ``unauthenticated``, ``too_old`` or ``failing``; empty if the record was not written by
            Nest.
        detail: a sentence, or the class of the last error.
        trace: stack frames of that error, without its message.
        attempts: how often the record was attempted; None if unknown.
        group: the consumer group that failed.
        written_at: when the dead letter was written; None if unknown.
        source: partition and offset on the source topic; None if unknown.
        key: original key.
        value: original value.
        headers: original headers.
        sealed: True if the record could not be unsealed; key, value and headers are then empty.
        removable: True if a tombstone deletes this record and no other.
    """

    topic: str
    offset: int
    dedup_key: str
    reason: str
    detail: str
    trace: str
    attempts: int | None
    group: str
    written_at: datetime | None
    source: tuple[int, int] | None
    key: bytes | None
    value: bytes | None
    headers: Headers
    sealed: bool = False
    removable: bool = False

    @property
    def id(self) -> str:
        """ID for operators: source topic and dead-letter offset, ``auth.commands.17``."""
        return f"{self.topic}.{self.offset}"

    @property
    def message_time(self) -> int | None:
        """Time of the original message, Unix milliseconds; None if its headers lack it."""
        return _number(self.header("time"))

    def header(self, name: str) -> str | None:
        """Return an original header as text; the last one if repeated. Bytes that are not UTF-8 are escaped."""
        for each, value in reversed(self.headers):
            if each == name:
                return (value or b"").decode("utf-8", "backslashreplace")
        return None

    def replay(self, *, forced_at: int | None = None) -> list[tuple[str, bytes]]:
        """Return the headers of a replay: the original ones and the replay headers.

        ``forced_at``, Unix milliseconds, is set if the message is to be handled although it is older than the inbox.
        """
        forced = [] if forced_at is None else [(REPLAY_TIME, b"%d" % forced_at)]
        return [*self.headers, *forced, (REPLAY_FOR, self.group.encode())]

    def refused(self, problem: str) -> DeadLetter:
        """Return this dead letter as one that Nest did not write: it has no valid MAC, and cannot be replayed."""
        return replace(self, reason="", detail=problem, trace="", attempts=None, group="", source=None)

    @classmethod
    def of(cls, record: Record, topic: str, sealer: Sealer | None) -> DeadLetter:
        """Parse a record of ``<topic>.dead``; any record parses, also one that Nest did not write.

        Without a sealer, or if the sealing key is gone, the result is ``sealed``.
        """
        original = list(record.headers)
        added: dict[str, str] = {}
        # From the end: dead letters written before they were sealed have the original headers in front, under any name.
        while original and original[-1][0] in DEAD_LETTER_HEADERS and original[-1][0] not in added:
            name, text = original.pop()
            added[name] = (text or b"").decode("utf-8", "backslashreplace")
        group, source = added.get(GROUP, ""), _source(added.get(SOURCE, ""), topic)
        headers = original_headers(original)
        sealed = SEALED in added
        if sealed:
            dedup_key = (record.key or b"").decode("utf-8", "backslashreplace")
            content = _unsealed(record.value, sealer)
        else:
            dedup_key = _dedup_key_of_unsealed(record, topic, group, source, headers)
            content = record.key, record.value, headers
        key, value, headers = content or (None, None, ())
        return cls(
            topic=topic,
            offset=record.offset,
            dedup_key=dedup_key,
            reason=added.get(REASON, ""),
            detail=added.get(DETAIL, ""),
            trace=added.get(TRACE, ""),
            attempts=_number(added.get(ATTEMPTS)),
            group=group,
            written_at=_datetime(added.get(TIME)),
            source=source,
            key=key,
            value=value,
            headers=headers,
            sealed=content is None,
            removable=sealed and bool(record.key),
        )


def dead_letter_record(
    record: Record,
    topic: str,
    *,
    sealer: Sealer,
    reason: str,
    detail: str,
    trace: str,
    attempts: int,
    group: str,
    at: int,
) -> DeadLetterRecord:
    """Build the dead letter of a failed record; the arguments are as in ``DeadLetter``.

    Neither ``detail`` nor ``trace`` may contain anything of the record: an exception's message may quote it. ``at`` is
    the current time, Unix milliseconds.
    """
    source = f"{topic}/{record.partition}/{record.offset}".encode()
    packed = _pack(record.key, record.value, original_headers(record.headers))
    return DeadLetterRecord(
        # A keyed hash: a record of a foreign client may be short enough to be guessed from a plain one.
        key=sealer.keyed_hash(RECEIVER, group.encode(), source, packed).encode(),
        # Compressed: a record that arrived compressed may be far larger than the limit of Kafka.
        value=sealer.seal(RECEIVER, zlib.compress(packed, 1)).encode(),
        headers=[
            (REASON, reason.encode()),
            (DETAIL, detail.encode("utf-8", "replace")[:DETAIL_BYTES]),
            (TRACE, trace.encode("utf-8", "replace")),
            (ATTEMPTS, b"%d" % attempts),
            (SOURCE, source),
            (GROUP, group.encode()),
            (TIME, b"%d" % at),
            (SEALED, SEALED_RECORD),
        ],
    )


def is_tombstone(record: Record) -> bool:
    """Return True if a record of a dead-letter topic only deletes a dead letter."""
    return record.key is not None and record.value is None and all(name == MAC for name, _ in record.headers)


def is_replay(headers: Sequence[tuple[str, bytes]]) -> bool:
    """Return True if a record is a replayed dead letter."""
    return bool(headers) and headers[-1][0] == REPLAY_FOR


def is_replay_for_other_group(headers: Sequence[tuple[str, bytes]], group: str) -> bool:
    """Return True if a record is a replayed dead letter of another consumer group."""
    return is_replay(headers) and headers[-1][1] != group.encode()


def original_headers(headers: Iterable[tuple[str, bytes]]) -> Headers:
    """Return a record's headers without those that a replay added."""
    original = list(headers)
    if original and original[0][0] == REPLAY_MAC:
        del original[0]
    if is_replay(original):
        original.pop()
        if original and original[-1][0] == REPLAY_TIME:
            original.pop()
    return tuple(original)


def _pack(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """Concatenate key, value and headers, each preceded by its length in 4 bytes; -1 for null, as in Kafka."""
    parts = [key, value]
    for name, content in headers:
        parts += [name.encode(), content]
    return b"".join(
        (-1 if part is None else len(part)).to_bytes(4, "big", signed=True) + (part or b"") for part in parts
    )


def _unpack(packed: bytes) -> tuple[bytes | None, bytes | None, Headers]:
    parts = _parts(packed)
    key, value = next(parts), next(parts)
    return key, value, tuple(((name or b"").decode(), next(parts)) for name in parts)  # type: ignore[misc]


def _parts(packed: bytes) -> Iterator[bytes | None]:
    at = 0
    while at < len(packed):
        length = int.from_bytes(packed[at : at + 4], "big", signed=True)
        at += 4
        yield None if length < 0 else packed[at : at + length]
        at += max(length, 0)


def _unsealed(value: bytes | None, sealer: Sealer | None) -> tuple[bytes | None, bytes | None, Headers] | None:
    if sealer is None:
        return None
    try:
        return _unpack(zlib.decompress(sealer.unseal(RECEIVER, (value or b"").decode("ascii", "replace"))))
    except CannotUnseal:
        return None


def _dedup_key_of_unsealed(
    record: Record, topic: str, group: str, source: tuple[int, int] | None, headers: Headers
) -> str:
    """Derive the deduplication key of a dead letter written before dead letters were sealed."""
    partition, offset = source or (-1, record.offset)
    parts = [group.encode(), topic.encode(), b"%d/%d" % (partition, offset), record.value or b""]
    parts += [part for name, value in headers for part in (name.encode("utf-8", "replace"), value or b"")]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:32]


def _source(text: str, topic: str) -> tuple[int, int] | None:
    place = re.fullmatch(rf"{re.escape(topic)}/([0-9]{{1,18}})/([0-9]{{1,18}})", text)
    return None if place is None else (int(place[1]), int(place[2]))


def _datetime(text: str | None) -> datetime | None:
    milliseconds = _number(text)
    if milliseconds is None or milliseconds > _MAX_DATETIME_MILLISECONDS:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None
