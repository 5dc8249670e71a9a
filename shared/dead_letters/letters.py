"""What is a dead letter? A record as it came, sealed, and readable headers that say why it was put aside.

It lies on ``<topic>.dead`` for 30 days. Whoever puts a record aside writes it here, whoever looks at it reads it here,
and here it becomes again what it was, for whoever may handle it now.

Every record is sealed, whatever it is: most name nobody, but of what could not be read nobody knows what it says, and
any may tell the address that its caller came from.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from shared.dead_letters.replay_headers import REPLAY_FOR, REPLAY_TIME, Headers, own_headers
from shared.sealing import CannotOpen, Sealer

REASON: Final = "dead-reason"
DETAIL: Final = "dead-detail"
TRACE: Final = "dead-trace"
TRIES: Final = "dead-tries"
SOURCE: Final = "dead-source"
GROUP: Final = "dead-group"
TIME: Final = "dead-time"
SEALED: Final = "dead-sealed"
ADDED: Final = frozenset({REASON, DETAIL, TRACE, TRIES, SOURCE, GROUP, TIME, SEALED})
"""What a record gets when it is put aside."""
RECEIVER: Final = "dead-letters"
"""For whom letters are sealed: no service, but whoever shows them or puts them back."""
SEALED_WHOLE: Final = b"1"
"""The letter's value is key, value and headers of the record, packed, compressed and sealed."""
DETAIL_BYTES: Final = 1_000


class Aside(Protocol):
    """A record on ``<topic>.dead``."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class PutAside(Protocol):
    """A record that nobody could handle."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Written:
    """A letter as Kafka is to keep it.

    Attributes:
        key: the letter's mark. Of several about one record Kafka keeps one, and one without a value removes them.
        value: the record, sealed.
        headers: why it was put aside.
    """

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that was put aside.

    Attributes:
        topic: where it came from, without the deployment's prefix.
        place: its offset on ``<topic>.dead``.
        mark: names what was put aside, by whom, and from where. The same for each letter about it: a crash, or an
            acknowledgement that was lost, may leave two.
        reason: ``undecodable``, ``too_old`` or ``failing``; empty where somebody else than Nest wrote it.
        detail: what was wrong: a sentence, or the class of the last error.
        trace: the frames of that error, never what it said.
        tries: how often it was tried; None where nobody counted.
        group: the consumer group that put it aside.
        at: when that was; None where nobody said.
        source: partition and offset on its topic; None where nobody said.
        key: as it came.
        value: as it came.
        headers: as they came.
        closed: it is sealed, and was not opened: key, value and headers are not known.
        erasable: nothing but this record is on its topic under its key.
    """

    topic: str
    place: int
    mark: str
    reason: str
    detail: str
    trace: str
    tries: int | None
    group: str
    at: datetime | None
    source: tuple[int, int] | None
    key: bytes | None
    value: bytes | None
    headers: Headers
    closed: bool = False
    erasable: bool = False

    @property
    def id(self) -> str:
        """Where it lies: ``auth.commands.17``."""
        return f"{self.topic}.{self.place}"

    @property
    def made_at(self) -> int | None:
        """When its message was put on the bus, Unix milliseconds; None where its headers don't tell."""
        return _number(self.header("time"))

    def header(self, name: str) -> str | None:
        """One of its own headers, the last of that name; what isn't UTF-8 in it is escaped."""
        for found, value in reversed(self.headers):
            if found == name:
                return (value or b"").decode("utf-8", "backslashreplace")
        return None

    def replay(self, *, although_too_old_at: int | None = None) -> list[tuple[str, bytes]]:
        """The headers with which it goes back to its topic: its own, and whom it is for.

        Args:
            although_too_old_at: the time, Unix milliseconds, when it is to be handled although nobody remembers
                whether it was.
        """
        headers = list(self.headers)
        if although_too_old_at is not None:
            headers.append((REPLAY_TIME, b"%d" % although_too_old_at))
        headers.append((REPLAY_FOR, self.group.encode()))
        return headers

    @classmethod
    def of(cls, record: Aside, topic: str, sealer: Sealer | None) -> DeadLetter:
        """Read a record of ``<topic>.dead``; whatever anybody has put there can be read.

        Args:
            record: as it lies there.
            topic: where it came from, without the deployment's prefix.
            sealer: opens it; None: it stays closed, as it does when the key is gone that it was sealed with.
        """
        own = list(record.headers)
        added: dict[str, str] = {}
        # From the end: before letters were sealed, a record's own headers stood there too, under any name.
        while own and own[-1][0] in ADDED and own[-1][0] not in added:
            name, said = own.pop()
            added[name] = (said or b"").decode("utf-8", "backslashreplace")
        group, source = added.get(GROUP, ""), _source(added.get(SOURCE, ""), topic)
        sealed = SEALED in added
        opened = _opened(record.value, sealer) if sealed else (record.key, record.value, own_headers(own))
        if sealed:
            mark = (record.key or b"").decode("utf-8", "backslashreplace")
        else:
            mark = _mark_of_old(record, topic, group, source, own_headers(own))
        key, value, headers = opened or (None, None, ())
        return cls(
            topic=topic,
            place=record.offset,
            mark=mark,
            reason=added.get(REASON, ""),
            detail=added.get(DETAIL, ""),
            trace=added.get(TRACE, ""),
            tries=_number(added.get(TRIES)),
            group=group,
            at=_moment(added.get(TIME)),
            source=source,
            key=key,
            value=value,
            headers=headers,
            closed=opened is None,
            erasable=sealed and bool(record.key),
        )


def put_aside(
    record: PutAside,
    topic: str,
    *,
    sealer: Sealer,
    reason: str,
    detail: str,
    trace: str,
    tries: int,
    group: str,
    at: int,
) -> Written:
    """A record as a letter: sealed, and why.

    Args:
        record: the record.
        topic: its topic, without the deployment's prefix.
        sealer: closes it.
        reason: ``undecodable``, ``too_old`` or ``failing``.
        detail: what was wrong; never anything out of the record.
        trace: frames alone: what an exception says may quote what it choked on.
        tries: how often it was tried.
        group: the consumer group that puts it aside.
        at: now, Unix milliseconds.
    """
    source = f"{topic}/{record.partition}/{record.offset}".encode()
    packed = _packed(record.key, record.value, own_headers(record.headers))
    return Written(
        # Keyed: what somebody else than Nest wrote may be short enough to be guessed.
        key=sealer.keyed_hash(RECEIVER, group.encode(), source, packed).encode(),
        # Compressed: one that came so may be far larger than Kafka takes.
        value=sealer.seal(RECEIVER, zlib.compress(packed, 1)).encode(),
        headers=[
            (REASON, reason.encode()),
            (DETAIL, detail.encode("utf-8", "replace")[:DETAIL_BYTES]),
            (TRACE, trace.encode("utf-8", "replace")),
            (TRIES, b"%d" % tries),
            (SOURCE, source),
            (GROUP, group.encode()),
            (TIME, b"%d" % at),
            (SEALED, SEALED_WHOLE),
        ],
    )


def is_removal(record: Aside) -> bool:
    """Whether a record of a dead-letter topic is no letter but the removal of one."""
    return record.key is not None and record.value is None and not record.headers


def _packed(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """A record in one piece: each part behind its length, which is -1 for one that is null, as Kafka writes them."""
    parts = [key, value]
    for name, content in headers:
        parts += [name.encode(), content]
    return b"".join(
        (-1 if part is None else len(part)).to_bytes(4, "big", signed=True) + (part or b"") for part in parts
    )


def _unpacked(packed: bytes) -> tuple[bytes | None, bytes | None, Headers]:
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


def _opened(value: bytes | None, sealer: Sealer | None) -> tuple[bytes | None, bytes | None, Headers] | None:
    """The record that a letter holds; None when it can't be opened."""
    if sealer is None:
        return None
    try:
        return _unpacked(zlib.decompress(sealer.open(RECEIVER, (value or b"").decode("ascii", "replace"))))
    except CannotOpen:
        return None


def _mark_of_old(record: Aside, topic: str, group: str, source: tuple[int, int] | None, headers: Headers) -> str:
    """The mark of a letter that is not sealed."""
    partition, offset = source or (-1, record.offset)
    parts = [group.encode(), topic.encode(), b"%d/%d" % (partition, offset), record.value or b""]
    parts += [part for name, value in headers for part in (name.encode("utf-8", "replace"), value or b"")]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:32]


def _source(text: str, topic: str) -> tuple[int, int] | None:
    named, *numbers = text.rsplit("/", 2)
    partition, offset = (_number(number) for number in numbers) if len(numbers) == 2 else (None, None)  # noqa: PLR2004
    return None if named != topic or partition is None or offset is None else (partition, offset)


def _moment(text: str | None) -> datetime | None:
    milliseconds = _number(text)
    # Beyond this a datetime ends.
    if milliseconds is None or milliseconds > 253_402_300_799_999:  # noqa: PLR2004
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 18 else None  # noqa: PLR2004
