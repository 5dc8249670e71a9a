"""What can be read without asking anybody? The items that are or will be live, and the registered clients, in memory.

Every instance keeps a board of its own. Whoever changes an item says so on ``news.events``; every instance hears it
and reads the items anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from services.news.models.bulletin import Bulletin
from services.news.models.items import NewsItem, Reader
from services.news.store import MOST_CURRENT, NewsItems
from shared.bus.envelope import Record
from shared.messages.auth.clients import ClientAnnounced
from shared.telemetry import log

LOOK_SECONDS: Final = 60.0
"""Read anew after so long in any case: a record that was not heard must not keep an item back for ever."""
AGAIN_SECONDS: Final = 1.0


class Board:
    """What is up.

    Args:
        items: where they are kept.
        clock: the time.
    """

    def __init__(self, items: NewsItems, clock: Callable[[], datetime]) -> None:
        self._items = items
        self._clock = clock
        self._known: dict[str, NewsItem] = {}
        self._bulletin = Bulletin(())
        self._clients: set[str] = set()
        self._changed = asyncio.Event()
        self._over = False

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """Read what there is, and on whenever something has changed.

        Raises:
            PyMongoError: MongoDB could not be asked at the start.
        """
        await self.read()
        reading = asyncio.create_task(self._keep_reading())
        try:
            yield
        finally:
            # Not cancelled: pymongo may answer that with a failure of its own, and the reading would go on.
            self._over = True
            self._changed.set()
            await reading

    def known(self, client_id: str) -> bool:
        """Whether the client is registered."""
        return client_id in self._clients

    def shown(self, reader: Reader, *, at: datetime) -> list[NewsItem]:
        """What a reader is shown at a moment, the most important and then the newest first; 100 at most."""
        return self._bulletin.shown(reader, at=at)

    def hear_of_items(self, _record: Record) -> None:
        """Something has changed."""
        self._changed.set()

    def hear_of_client(self, record: Record) -> None:
        """A client is registered, or, from a record without a value, is not any more."""
        if record.value is None:
            self._clients.discard((record.key or b"").decode())
            return
        try:
            client = ClientAnnounced.model_validate_json(record.value)
        except ValidationError as wrong:
            log.error("client not understood", offset=record.offset, error=type(wrong).__name__)
            return
        self._clients.add(client.client_id)

    async def read(self) -> None:
        """Read anew what has changed.

        Raises:
            PyMongoError: MongoDB could not be asked.
        """
        self._known = await self._items.current(self._known, at=self._clock())
        if len(self._known) == MOST_CURRENT:
            log.warning("too many news items: older ones are not shown", most=MOST_CURRENT)
        self._bulletin = Bulletin(self._known.values())

    async def _keep_reading(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
            if self._over:
                return
            # Before reading: what changes while it reads makes it read again.
            self._changed.clear()
            try:
                await self.read()
            except Exception as failure:  # noqa: BLE001 -- whatever it is, what is up stays up
                log.warning("news items not read", error=type(failure).__name__)
                self._changed.set()
                await asyncio.sleep(AGAIN_SECONDS)
