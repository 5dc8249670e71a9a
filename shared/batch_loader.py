"""How are many small questions to MongoDB made one? Those asked in the same breath share a query.

A query costs the driver some 200 µs of CPU whatever it finds, and messages come in batches: 32 of them that each ask
for one document are answered for little more than the price of one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, Final

from shared.mongo import Collection, Document

MOST_VALUES: Final = 256
"""Values in one query at the most."""


class BatchLoader:
    """Finds documents by the value of one field.

    What it answers is as fresh as a query of one's own: the shared one is sent after the question was asked.

    Args:
        collection: where.
        field: an indexed field that holds one value, not a list.
        where: what must hold besides; not to be changed afterwards.
    """

    def __init__(self, collection: Collection, field: str = "_id", where: Document | None = None) -> None:
        self._collection = collection
        self._field = field
        self._where = where or {}
        self._values: set[Any] = set()
        self._asking: asyncio.Task[dict[Any, list[Document]]] | None = None

    async def find(self, value: str) -> list[Document]:
        """The documents whose field has this value, in no order.

        Raises:
            PyMongoError: MongoDB could not be asked.
        """
        if self._asking is None or len(self._values) >= MOST_VALUES:
            self._values = set()
            self._asking = asyncio.create_task(self._ask(self._values))
        asking = self._asking
        self._values.add(value)
        # Shielded: one caller's end must not take the answer from the others.
        return (await asyncio.shield(asking)).get(value, [])

    async def find_one(self, value: str) -> Document | None:
        """The one document whose field has this value, or None.

        Raises:
            PyMongoError: as ``find``.
        """
        found = await self.find(value)
        return found[0] if found else None

    async def _ask(self, values: set[Any]) -> dict[Any, list[Document]]:
        await asyncio.sleep(0)
        if self._values is values:
            self._asking = None
        found: dict[Any, list[Document]] = defaultdict(list)
        async for document in self._collection.find({self._field: {"$in": list(values)}, **self._where}):
            found[document[self._field]].append(document)
        return found
