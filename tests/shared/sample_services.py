"""Two small services on the real bus, for the tests of the bus itself.

``ledger`` keeps a list of numbers for each subject and announces every number; ``audit`` hears of it. What the lists
hold afterwards tells whether something was lost, done twice or done out of order, whoever did it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from pymongo import ASCENDING, IndexModel

from shared.bus.handling import Handlers
from shared.bus.topics import DAY, Topic
from shared.bus.work import Work
from shared.errors import Kind, Refusal, Unavailable
from shared.messages import Command, Event, Query, Reply, Sealed
from shared.mongo import Collection
from shared.service import Resources

TOPICS: Final = (
    Topic("ledger.commands", 4, DAY),
    Topic("ledger.events", 4, DAY),
    Topic("ledger.webhooks", 2, DAY),
    Topic("gateway.replies", 4, DAY, consumed=False),
)


class Append(Command, wire="ledger.append"):
    """Write a number at the end of a subject's list; announced as Appended."""

    subject: str
    number: int
    unique: str | None = None
    """A value that only one entry may have."""
    events: int = 1
    """How many times it is announced."""
    fail: int = 0
    """How many runs of this process fail first."""
    pause: float = 0.0
    """Seconds that the handler takes."""
    later: float | None = None
    """Seconds after which it is announced; at once by default."""


class Relay(Command, wire="ledger.relay"):
    """Hand over to Append, whose answer is the answer."""

    subject: str
    number: int


class Reveal(Command, wire="ledger.reveal", reply_sealed=True):
    """Answer with a secret."""

    secret: Sealed


class Refuse(Command, wire="ledger.refuse"):
    """Write an entry and announce it, then refuse."""

    subject: str
    how: str


class Total(Query, wire="ledger.total"):
    """Count a subject's entries."""

    subject: str
    pause: float = 0.0


class Posted(Event, wire="ledger.posted", topic="ledger.webhooks"):
    """Somebody else's event, on a topic of its own."""

    subject: str
    number: int


class Appended(Event, wire="ledger.appended"):
    """A number was written."""

    subject: str
    number: int
    part: int = 0


class Count(Reply):
    """A number of entries."""

    entries: int


class Opened(Reply):
    """What a secret said."""

    secret: str


class EntryTaken(Refusal):
    """Another entry has that unique value."""

    kind = Kind.CONFLICT


class Throttled(Refusal):
    """Too soon."""

    kind = Kind.THROTTLED


class Forgotten(Refusal):
    """A refusal that leaves nothing but the answer."""

    kind = Kind.NOT_FOUND


class Remembered(Refusal):
    """A refusal that keeps the state."""

    kind = Kind.FORBIDDEN
    remembered = True


@dataclass
class Ledger:
    """What both services work with, and what a test wants to see of this process."""

    subjects: Collection
    entries: Collection
    reveal: Callable[[Sealed], str]
    runs: Counter[str] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)
    overlaps: int = 0
    """How often two messages of one key were being handled at the same time."""


async def append(command: Append, work: Work, ledger: Ledger) -> Count:
    """Write the number."""
    ledger.runs[work.id] += 1
    ledger.overlaps += bool(work.key and ledger.running[work.key])
    ledger.running[work.key] += 1
    try:
        await asyncio.sleep(command.pause)
        if ledger.runs[work.id] <= command.fail:
            raise RuntimeError(f"told to fail: {command.subject}")
        document = await ledger.subjects.find_one({"_id": command.subject})
    finally:
        ledger.running[work.key] -= 1
    numbers = [*(document["numbers"] if document else ()), command.number]
    if document is None:
        work.insert(ledger.subjects, {"_id": command.subject, "numbers": numbers, "version": 1})
    else:
        work.replace(ledger.subjects, {**document, "numbers": numbers}, version=document["version"])
    # An id of its own: a second effect would be a second entry.
    entry: dict[str, Any] = {"_id": work.new_id("entry"), "subject": command.subject, "number": command.number}
    if command.unique is not None:
        entry["unique"] = command.unique
    work.insert(ledger.entries, entry, taken=EntryTaken)
    at = None if command.later is None else work.now + timedelta(seconds=command.later)
    for part in range(command.events):
        work.publish(Appended(key=command.subject, subject=command.subject, number=command.number, part=part), at=at)
    return Count(entries=len(numbers))


async def relay(command: Relay, work: Work, ledger: Ledger) -> None:
    """Hand over."""
    ledger.runs[work.id] += 1
    work.forward(Append(key=command.subject, subject=command.subject, number=command.number))


async def reveal(command: Reveal, _work: Work, ledger: Ledger) -> Opened:
    """Open the secret, and say it to the caller alone."""
    return Opened(secret=ledger.reveal(command.secret))


async def refuse(command: Refuse, work: Work, ledger: Ledger) -> None:
    """Collect state and an event, then refuse."""
    ledger.runs[work.id] += 1
    work.insert(ledger.entries, {"_id": work.new_id("entry"), "subject": command.subject, "number": 0})
    work.publish(Appended(key=command.subject, subject=command.subject, number=0))
    refusals = {"remembered": Remembered, "forgotten": Forgotten, "unavailable": Unavailable, "throttled": Throttled}
    raise refusals[command.how](why="told to")


async def total(query: Total, work: Work, ledger: Ledger) -> Count:
    """Count."""
    ledger.runs[work.id] += 1
    await asyncio.sleep(query.pause)
    return Count(entries=await ledger.entries.count_documents({"subject": query.subject}))


async def take_posted(event: Posted, work: Work, ledger: Ledger) -> None:
    """Write it as an entry."""
    work.insert(ledger.entries, {"_id": work.new_id("entry"), "subject": event.subject, "number": event.number})


async def hear(event: Appended, work: Work, ledger: Ledger) -> None:
    """Write what was heard, in the order it was heard, as an entry of its own for each effect."""
    ledger.runs[work.id] += 1
    work.insert(
        ledger.entries,
        {"_id": work.new_id("entry"), "subject": event.subject, "number": event.number, "part": event.part},
    )


LEDGER: Final[Handlers] = {
    Append: append,
    Relay: relay,
    Reveal: reveal,
    Refuse: refuse,
    Total: total,
    Posted: take_posted,
}
AUDIT: Final[Handlers] = {Appended: hear}
HEARS: Final = {
    "ledger": ("ledger.commands", "ledger.webhooks"),
    "audit": ("ledger.events",),
}
"""Which topics each of the two consumes."""
INDEXES: Final = {
    "subjects": [],
    "entries": [
        IndexModel([("subject", ASCENDING), ("number", ASCENDING)]),
        IndexModel([("unique", ASCENDING)], unique=True, partialFilterExpression={"unique": {"$type": "string"}}),
    ],
}


def opening(kept: list[Ledger]) -> Callable[[Resources], AbstractAsyncContextManager[Ledger]]:
    """What makes the context, and keeps it for the test."""

    @asynccontextmanager
    async def open_ledger(resources: Resources) -> AsyncIterator[Ledger]:
        ledger = Ledger(
            subjects=resources.database["subjects"],
            entries=resources.database["entries"],
            reveal=lambda secret: resources.sealer.unseal_secret("ledger", secret),
        )
        kept.append(ledger)
        yield ledger

    return open_ledger
