"""Store of the billing history, and its recording with the work of each message."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from services.billing.history.models import HistoryEntry
from shared.bus.work import Work
from shared.documents import Rows
from shared.indexes import expiry_index
from shared.messages import Message
from shared.paging import NewestFirst

_ORDER: Final = NewestFirst("at")


class BillingHistory(Rows[HistoryEntry]):
    """The collection ``billing_history``."""

    COLLECTION: Final = "billing_history"
    INDEXES: Final = (_ORDER.index("userId", scattered=True), expiry_index("expiresAt"))

    async def record(self, work: Work) -> None:
        """Add an entry for every event that a work publishes, committed together with it."""
        await self.add_events(((message, envelope.id) for message, envelope in work.outgoing), work)

    async def add_events(self, events: Iterable[tuple[Message, str]], work: Work) -> None:
        """Add the entries of events with these message IDs. A change that several works announce has one entry."""
        entries = {
            entry.id: entry
            for message, message_id in events
            if (entry := HistoryEntry.of(message, message_id, recorded_at=work.now)) is not None
        }
        if not entries:
            return
        recorded = await asyncio.gather(*(self._by_id.find_one(entry_id) for entry_id in entries))
        for entry, known in zip(entries.values(), recorded, strict=True):
            if known is None:
                self.add(entry, work)

    async def page(self, user_id: str, *, limit: int, cursor: str | None) -> list[HistoryEntry]:
        """The entries of a page, newest first, and one more if another page follows; raises InvalidCursor."""
        documents = await _ORDER.page(self._collection, {"userId": {"$eq": user_id}}, limit=limit, cursor=cursor)
        return [self._read(document) for document in documents]
