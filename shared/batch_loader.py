"""Batch loader: combines concurrent lookups of single documents into one MongoDB query.

A query costs the driver some 200 µs of CPU, whatever it finds. Messages are handled in batches, so that the lookups of
32 messages cost little more than one. While a query is running, further lookups wait for the next one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shared.mongo import Collection, Document
from shared.tracing import ACTIVE, active_span

if TYPE_CHECKING:
    from shared.spans import RecordedSpan

MAX_VALUES: Final = 256
"""Values in one query."""
MAX_WAIT: Final = 0.02
"""Longest time that a query waits for the end of the one before it, seconds. A query takes less than a millisecond; one
that hangs does not delay the next ones."""
Found = Mapping[Any, list[Document]]
"""Documents by the value of the field."""


@dataclass(eq=False, slots=True)
class _Query:
    """A query that serves several callers: the values to find, and the futures of their results."""

    values: set[Any] = field(default_factory=set)
    callers: list[asyncio.Future[Found]] = field(default_factory=list)

    def waiting(self) -> Iterator[asyncio.Future[Found]]:
        """Yield the futures of the callers that were not cancelled."""
        return (caller for caller in self.callers if not caller.done())


class BatchLoader:
    """Finds documents by the value of one field, which is indexed and holds a single value.

    A result is as fresh as that of a separate query, because the combined query is sent after every lookup it serves.
    ``where`` adds conditions and must not be changed afterwards.
    """

    def __init__(self, collection: Collection, field: str = "_id", where: Document | None = None) -> None:
        self._collection = collection
        self._field = field
        self._where = where or {}
        self._next: _Query | None = None
        self._running: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, value: str) -> list[Document]:
        """Return the documents whose field has this value, in any order.

        Raises:
            PyMongoError: the query failed.
        """
        return (await self._load_with(value)).get(value, [])

    async def find_one(self, value: str) -> Document | None:
        """Return the only document whose field has this value, or None; raise as ``find``."""
        documents = await self.find(value)
        return documents[0] if documents else None

    async def find_first(self, *values: str) -> Document | None:
        """Return the document of the first of these values that has one, or None; raise as ``find``."""
        found = await self._load_with(*values)
        return next((found[value][0] for value in values if value in found), None)

    async def _load_with(self, *values: str) -> Found:
        """Return the result of the next query, which finds these values and those of other lookups."""
        query = self._next
        if query is None or len(query.values) >= MAX_VALUES:
            query = self._next = _Query()
            # A context of its own: the time limit of the first caller is not that of the others.
            task = asyncio.create_task(self._load(query, active_span()), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        query.values.update(values)
        # A future for each caller: if one is cancelled, the others still need the result.
        found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        query.callers.append(found)
        return await found

    async def _load(self, query: _Query, active: RecordedSpan | None) -> None:
        # In traces the query belongs to its first caller.
        ACTIVE.set(active)
        # One turn of the event loop, in which further lookups add their values.
        await asyncio.sleep(0)
        if self._running is not None:
            await asyncio.wait([self._running], timeout=MAX_WAIT)
        if self._next is query:
            self._next = None
        self._running = own = asyncio.current_task()
        try:
            found = await self._find(query.values)
        except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001 -- passed on to the callers
            for caller in query.waiting():
                caller.set_exception(failure)
        else:
            for caller in query.waiting():
                caller.set_result(found)
        finally:
            if self._running is own:
                self._running = None

    async def _find(self, values: set[Any]) -> Found:
        query = {self._field: {"$in": list(values)}, **self._where}
        return by_value([(document[self._field], document) async for document in self._collection.find(query)])


def by_value(documents: Iterable[tuple[Any, Document]]) -> Found:
    """Group documents by the value that precedes each."""
    found: dict[Any, list[Document]] = defaultdict(list)
    for value, document in documents:
        found[value].append(document)
    return found
