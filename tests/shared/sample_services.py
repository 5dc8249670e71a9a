"""Two small services for the tests of the bus.

``ledger`` appends numbers to a list per subject and publishes an event for each; ``audit`` stores the events. The lists
show whether a message was lost, took effect twice or was handled out of order.

``python -m tests.shared.sample_services ledger`` runs one of them as a process.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from pymongo import ASCENDING, IndexModel

from shared.bus.handling import Handlers
from shared.bus.topics import DAY, GROWTH, INSTANCES, Topic
from shared.bus.work import Work
from shared.errors import Kind, Refusal, Unavailable
from shared.messages import Command, Event, Query, Reply, Sealed
from shared.messages.auth.partitions import PAUSED_PARTITIONS
from shared.messages.republishing import RepublishMessages
from shared.mongo import Collection
from shared.service import Resources, Service, run
from shared.settings import ServiceSettings, load

TOPICS: Final = (
    INSTANCES,
    Topic(PAUSED_PARTITIONS, 1, DAY, compacted=True, consumed=False),
    GROWTH,
    Topic("ledger.commands", 4, DAY),
    Topic("ledger.events", 4, DAY),
    Topic("ledger.webhooks", 2, DAY),
    Topic("gateway.replies", 4, DAY, consumed=False),
)


class Append(Command, wire="ledger.append"):
    """Append a number to the list of a subject; publishes Appended."""

    subject: str
    number: int
    unique: str | None = None
    """Value of the unique index of entries."""
    events: int = 1
    """Number of Appended events."""
    fail: int = 0
    """Number of runs in this process that fail first."""
    pause: float = 0.0
    """Duration of the handler, seconds."""
    block: float = 0.0
    """Duration for which the handler blocks the event loop, seconds."""
    gated: bool = False
    """The handler waits for the gate of its process."""
    later: float | None = None
    """Delay of the events, seconds; not delayed by default."""


class Relay(Command, wire="ledger.relay"):
    """Forward to Append."""

    subject: str
    number: int


class Reveal(Command, wire="ledger.reveal", reply_sealed=True):
    """Reply with a secret."""

    secret: Sealed


class Refuse(Command, wire="ledger.refuse"):
    """Insert an entry, publish an event, then refuse."""

    subject: str
    how: str


class RepublishFromLedger(RepublishMessages, wire="ledger.republish-from-ledger"):
    """Send messages of the ledger again."""


REPUBLISH_COMMANDS: Final = (RepublishFromLedger,)


class Total(Query, wire="ledger.total"):
    """Count the entries of a subject."""

    subject: str
    pause: float = 0.0


class Posted(Event, wire="ledger.posted", topic="ledger.webhooks"):
    """An event on a topic of its own, as a webhook."""

    subject: str
    number: int


class Appended(Event, wire="ledger.appended"):
    """A number was appended."""

    subject: str
    number: int
    part: int = 0


class Count(Reply):
    """Number of entries."""

    entries: int


class Opened(Reply):
    """Plain text of a secret."""

    secret: str


class EntryTaken(Refusal, kind=Kind.CONFLICT):
    """Another entry has this unique value."""


class Throttled(Refusal, kind=Kind.THROTTLED):
    """A rate limit was exceeded."""


class Forgotten(Refusal, kind=Kind.NOT_FOUND):
    """A refusal that discards the state."""


class Remembered(Refusal, kind=Kind.FORBIDDEN, remembered=True):
    """A refusal that commits the state."""


@dataclass
class Ledger:
    """Context of both services.

    Attributes:
        runs: runs of handlers in this process, by message ID.
        running: handlers that run now, by ordering key.
        most_running: the largest number of handlers that ran at the same time.
        overlaps: how often two messages of one key were handled at the same time.
        gate: set by a test to let gated handlers continue.
    """

    subjects: Collection
    entries: Collection
    unseal: Callable[[Sealed], str]
    runs: Counter[str] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)
    most_running: int = 0
    overlaps: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)


async def append(command: Append, work: Work, ledger: Ledger) -> Count:
    """Append the number, insert an entry and publish the events."""
    ledger.runs[work.id] += 1
    ledger.overlaps += bool(work.key and ledger.running[work.key])
    ledger.running[work.key] += 1
    ledger.most_running = max(ledger.most_running, ledger.running.total())
    try:
        await asyncio.sleep(command.pause)
        time.sleep(command.block)  # noqa: ASYNC251 -- a fault
        if command.gated:
            await ledger.gate.wait()
        if ledger.runs[work.id] <= command.fail:
            raise RuntimeError(f"failing on purpose: {command.subject}")
        document = await ledger.subjects.find_one({"_id": command.subject})
    finally:
        ledger.running[work.key] -= 1
    numbers = [*(document["numbers"] if document else ()), command.number]
    if document is None:
        work.insert(ledger.subjects, {"_id": command.subject, "numbers": numbers, "version": 1})
    else:
        work.replace(ledger.subjects, {**document, "numbers": numbers}, version=document["version"])
    # A random ID, so that a second effect would be a second entry.
    entry: dict[str, Any] = {"_id": work.new_id("entry"), "subject": command.subject, "number": command.number}
    if command.unique is not None:
        entry["unique"] = command.unique
    work.insert(ledger.entries, entry, taken=EntryTaken)
    at = None if command.later is None else work.now + timedelta(seconds=command.later)
    for part in range(command.events):
        work.publish(Appended(key=command.subject, subject=command.subject, number=command.number, part=part), at=at)
    return Count(entries=len(numbers))


async def relay(command: Relay, work: Work, ledger: Ledger) -> None:
    """Forward the command."""
    ledger.runs[work.id] += 1
    work.forward(Append(key=command.subject, subject=command.subject, number=command.number))


async def reveal(command: Reveal, _work: Work, ledger: Ledger) -> Opened:
    """Unseal the secret and reply with it."""
    return Opened(secret=ledger.unseal(command.secret))


async def refuse(command: Refuse, work: Work, ledger: Ledger) -> None:
    """Collect a write and an event, then refuse."""
    ledger.runs[work.id] += 1
    work.insert(ledger.entries, {"_id": work.new_id("entry"), "subject": command.subject, "number": 0})
    work.publish(Appended(key=command.subject, subject=command.subject, number=0))
    refusals = {"remembered": Remembered, "forgotten": Forgotten, "unavailable": Unavailable, "throttled": Throttled}
    raise refusals[command.how](why="on purpose")


async def total(query: Total, work: Work, ledger: Ledger) -> Count:
    """Count the entries."""
    ledger.runs[work.id] += 1
    await asyncio.sleep(query.pause)
    return Count(entries=await ledger.entries.count_documents({"subject": query.subject}))


async def store_posted(event: Posted, work: Work, ledger: Ledger) -> None:
    """Insert the event as an entry."""
    work.insert(ledger.entries, {"_id": work.new_id("entry"), "subject": event.subject, "number": event.number})


async def store_appended(event: Appended, work: Work, ledger: Ledger) -> None:
    """Insert the event as an entry; a second effect would be a second entry."""
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
    Posted: store_posted,
}
AUDIT: Final[Handlers] = {Appended: store_appended}
HANDLERS: Final = {"ledger": LEDGER, "audit": AUDIT}
CONSUMED: Final = {
    "ledger": ("ledger.commands", "ledger.webhooks"),
    "audit": ("ledger.events",),
}
"""Topics that each service consumes."""
CONSUMERS: Final = {topic: (name,) for name, topics in CONSUMED.items() for topic in topics}
"""The service that consumes each topic."""
INDEXES: Final = {
    "subjects": [],
    "entries": [
        IndexModel([("subject", ASCENDING), ("number", ASCENDING)]),
        IndexModel([("unique", ASCENDING)], unique=True, partialFilterExpression={"unique": {"$type": "string"}}),
    ],
}


def open_context(opened: list[Ledger]) -> Callable[[Resources], AbstractAsyncContextManager[Ledger]]:
    """Return a function that opens the context of a service and adds it to ``opened``."""

    @asynccontextmanager
    async def open_ledger(resources: Resources) -> AsyncIterator[Ledger]:
        ledger = Ledger(
            subjects=resources.database["subjects"],
            entries=resources.database["entries"],
            unseal=lambda secret: resources.sealer.unseal_secret("ledger", secret),
        )
        opened.append(ledger)
        yield ledger

    return open_ledger


def main() -> int:
    """Run the service that the command line names until it receives a signal."""
    name = sys.argv[1]
    return run(
        name,
        lambda: Service(
            load(ServiceSettings),
            name=name,
            handlers=HANDLERS[name],
            topics=CONSUMED[name],
            indexes=INDEXES,
            open_context=open_context([]),
            republish_commands=REPUBLISH_COMMANDS,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
