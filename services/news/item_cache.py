"""In-memory cache of the current news items and the registered clients.

Each instance has its own cache. A handler that changes an item publishes an event on ``news.events``; every instance
reads the topic and then reloads the items.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from services.news.feed import Feed
from services.news.models import NewsItem, Reader
from services.news.store import MAX_CURRENT_ITEMS, NewsItems
from shared.bus.envelope import Record
from shared.messages.auth.clients import ClientAnnounced
from shared.telemetry import log

RELOAD_SECONDS: Final = 60.0
"""Maximum age of the items, in case an event was missed."""
RETRY_SECONDS: Final = 1.0


class ItemCache:
    """Current items and registered clients."""

    def __init__(self, store: NewsItems, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._items: dict[str, NewsItem] = {}
        self._feed = Feed(())
        self._clients: set[str] = set()
        self._changed = asyncio.Event()
        self._stopping = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load the items, and reload them after every change until the context is left.

        Raises:
            PyMongoError: the first load failed.
        """
        await self.reload()
        reloading = asyncio.create_task(self._keep_reloading())
        try:
            yield
        finally:
            # Not cancelled: pymongo may turn a cancellation into an error of its own, and the task would continue.
            self._stopping = True
            self._changed.set()
            await reloading

    def has_client(self, client_id: str) -> bool:
        """Whether the client is registered."""
        return client_id in self._clients

    def list_for(self, reader: Reader, *, at: datetime) -> list[NewsItem]:
        """As ``Feed.list_for``."""
        return self._feed.list_for(reader, at=at)

    def on_item_event(self, _record: Record) -> None:
        """Schedule a reload."""
        self._changed.set()

    def on_client_event(self, record: Record) -> None:
        """Add a client; remove it if the record is a tombstone."""
        if record.value is None:
            self._clients.discard((record.key or b"").decode())
            return
        try:
            client = ClientAnnounced.model_validate_json(record.value)
        except ValidationError as invalid:
            log.error("invalid client event", offset=record.offset, error=type(invalid).__name__)
            return
        self._clients.add(client.client_id)

    async def reload(self) -> None:
        """Load the items that have changed.

        Raises:
            PyMongoError: the read failed.
        """
        self._items = await self._store.load_current(self._items, at=self._clock())
        if len(self._items) == MAX_CURRENT_ITEMS:
            log.warning("too many news items, older ones are not shown", limit=MAX_CURRENT_ITEMS)
        self._feed = Feed(self._items.values())

    async def _keep_reloading(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RELOAD_SECONDS):
                    await self._changed.wait()
            if self._stopping:
                return
            # Cleared before the reload: a change during it must cause another one.
            self._changed.clear()
            try:
                await self.reload()
            except Exception as failure:  # noqa: BLE001 -- after any error the loaded items stay available
                log.warning("news items not reloaded", error=type(failure).__name__)
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)
