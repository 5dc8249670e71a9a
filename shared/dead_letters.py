"""What is a dead letter? A record as it came, and behind its own headers those that say why it was put aside.

It lies on ``<topic>.dead`` for 30 days. Whoever puts a record aside writes it here, whoever looks at it reads it here,
and here it becomes again what it was, for whoever may handle it now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

Headers = tuple[tuple[str, bytes], ...]
"""As Kafka keeps them: in order, one name any number of times. A foreign client may have written a value that is null;
it is kept."""

REASON: Final = "dead-reason"
DETAIL: Final = "dead-detail"
TRACE: Final = "dead-trace"
TRIES: Final = "dead-tries"
SOURCE: Final = "dead-source"
GROUP: Final = "dead-group"
TIME: Final = "dead-time"
ADDED: Final = frozenset({REASON, DETAIL, TRACE, TRIES, SOURCE, GROUP, TIME})
"""What a record gets when it is put aside, behind its own headers."""
REPLAY_TIME: Final = "replay-time"
"""When an operator ordered a message to be handled that is older than the inbox remembers; Unix milliseconds."""
REPLAY_FOR: Final = "replay-for"
"""The consumer group that put the record aside: nobody else takes its replay. Always the last header, so that whoever
reads records sees it at a glance."""
REPLAYED: Final = frozenset({REPLAY_TIME, REPLAY_FOR})
"""What a record gets when it is replayed; not its own when it is put aside again."""
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
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that was put aside.

    Attributes:
        topic: where it came from, without the deployment's prefix.
        place: its offset on ``<topic>.dead``.
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
    """

    topic: str
    place: int
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

    @property
    def id(self) -> str:
        """Where it lies: ``auth.commands.17``."""
        return f"{self.topic}.{self.place}"

    @property
    def mark(self) -> str:
        """Names what was put aside, by whom, and from where; 32 hex characters.

        The same for each letter about it: a crash, or an acknowledgement that was lost, may leave two.
        """
        partition, offset = self.source or (-1, self.place)
        parts = [self.group.encode(), self.topic.encode(), b"%d/%d" % (partition, offset), self.value or b""]
        parts += [part for name, value in self.headers for part in (name.encode("utf-8", "replace"), value or b"")]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()[:32]

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
    def of(cls, record: Aside, topic: str) -> DeadLetter:
        """Read a record of ``<topic>.dead``; whatever anybody has put there can be read."""
        own = list(record.headers)
        added: dict[str, str] = {}
        # From the end: a record's own headers may bear any name, ours too.
        while own and own[-1][0] in ADDED and own[-1][0] not in added:
            name, value = own.pop()
            added[name] = (value or b"").decode("utf-8", "backslashreplace")
        return cls(
            topic=topic,
            place=record.offset,
            reason=added.get(REASON, ""),
            detail=added.get(DETAIL, ""),
            trace=added.get(TRACE, ""),
            tries=_number(added.get(TRIES)),
            group=added.get(GROUP, ""),
            at=_moment(added.get(TIME)),
            source=_source(added.get(SOURCE, ""), topic),
            key=record.key,
            value=record.value,
            headers=_own(own),
        )


def put_aside(
    record: PutAside, topic: str, *, reason: str, detail: str, trace: str, tries: int, group: str, at: int
) -> list[tuple[str, bytes]]:
    """The headers of a record that is put aside: its own, and why.

    Args:
        record: the record.
        topic: its topic, without the deployment's prefix.
        reason: ``undecodable``, ``too_old`` or ``failing``.
        detail: what was wrong; never anything out of the body.
        trace: frames alone: what an exception says may quote what it choked on.
        tries: how often it was tried.
        group: the consumer group that puts it aside.
        at: now, Unix milliseconds.
    """
    return [
        *_own(record.headers),
        (REASON, reason.encode()),
        (DETAIL, detail.encode("utf-8", "replace")[:DETAIL_BYTES]),
        (TRACE, trace.encode("utf-8", "replace")),
        (TRIES, b"%d" % tries),
        (SOURCE, f"{topic}/{record.partition}/{record.offset}".encode()),
        (GROUP, group.encode()),
        (TIME, b"%d" % at),
    ]


def is_replay(headers: Sequence[tuple[str, bytes]]) -> bool:
    """Whether a record is a letter that was put back."""
    return bool(headers) and headers[-1][0] == REPLAY_FOR


def for_others(headers: Sequence[tuple[str, bytes]], group: str) -> bool:
    """Whether a record is the replay of what another consumer group has put aside."""
    return is_replay(headers) and headers[-1][1] != group.encode()


def _own(headers: Iterable[tuple[str, bytes]]) -> Headers:
    """Without what a replay has added at the end."""
    own = list(headers)
    if is_replay(own):
        own.pop()
        if own and own[-1][0] == REPLAY_TIME:
            own.pop()
    return tuple(own)


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
