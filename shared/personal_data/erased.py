"""Who must not come back? The ids of erased users, and of what is theirs elsewhere, which say nothing of a person."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.mongo import Database


class Erased:
    """The collection ``erased``: a document for each id, kept for ever: others may tell of it at any time."""

    COLLECTION: Final = "erased"

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._collection)

    async def includes(self, *ids: str | None) -> bool:
        """Whether one of these is of somebody who was erased."""
        found = await asyncio.gather(*(self._by_id.find_one(one) for one in ids if one is not None))
        return any(document is not None for document in found)

    async def includes_all(self, ids: Iterable[str]) -> bool:
        """Whether all of these are of somebody who was erased."""
        found = await asyncio.gather(*(self._by_id.find_one(one) for one in ids))
        return None not in found

    async def add(self, ids: Iterable[str], work: Work) -> None:
        """Remember ids; those that are known stay as they are."""
        for one in ids:
            if await self._by_id.find_one(one) is None:
                work.insert(self._collection, {"_id": one, "at": work.now})
