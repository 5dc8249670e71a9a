"""A small service on the real bus, for the tests of the bus itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pymongo import ASCENDING, IndexModel

from shared.errors import Kind, Refusal
from shared.messages import Command, Event, Query, Reply
from shared.mongo import Collection
from shared.service import Parts
from shared.work import Work


class Write(Command, wire="echo.write"):
    """Store a line under a subject; announced as Written."""

    line: str
    subject: str = ""
    unique: str | None = None
    fail: int = 0
    pause: float = 0.0


class Read(Query, wire="echo.read"):
    """Count the lines of a subject."""

    subject: str


class Written(Event, wire="echo.written"):
    """A line was stored."""

    line: str
    number: int = 0


class Count(Reply):
    """A number of lines."""

    lines: int


class LineTaken(Refusal):
    """Somebody else has written that."""

    kind = Kind.CONFLICT


@dataclass
class Echo:
    """The service's context, with what a test wants to see of it."""

    lines: Collection
    runs: Counter[str] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)
    overlaps: int = 0
    order: list[str] = field(default_factory=list)


async def write(command: Write, work: Work, echo: Echo) -> Count:
    """Store the line; counts runs, and whether two of one key ever overlap."""
    echo.runs[work.id] += 1
    echo.overlaps += bool(work.key and echo.running[work.key])
    echo.running[work.key] += 1
    try:
        echo.order.append(command.line)
        if command.pause:
            await asyncio.sleep(command.pause)
        if echo.runs[work.id] <= command.fail:
            raise RuntimeError("told to fail")
    finally:
        echo.running[work.key] -= 1
    document = {"_id": work.id, "line": command.line, "subject": command.subject, "version": 1}
    if command.unique is not None:
        document["unique"] = command.unique
    work.insert(echo.lines, document, taken=LineTaken)
    for number in range(4):
        work.publish(Written(line=command.line, number=number, key=command.subject))
    return Count(lines=1)


async def read(query: Read, _work: Work, echo: Echo) -> Count:
    """Count."""
    return Count(lines=await echo.lines.count_documents({"subject": query.subject}))


HANDLERS = {Write: write, Read: read}
INDEXES = {
    "lines": [
        IndexModel([("subject", ASCENDING)]),
        IndexModel([("unique", ASCENDING)], unique=True, partialFilterExpression={"unique": {"$type": "string"}}),
    ]
}


def opening(kept: list[Echo]) -> object:
    """What makes the context, and keeps it for the test."""

    @asynccontextmanager
    async def open_echo(parts: Parts) -> AsyncIterator[Echo]:
        echo = Echo(parts.database["lines"])
        kept.append(echo)
        yield echo

    return open_echo
