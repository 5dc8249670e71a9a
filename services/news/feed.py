"""Feed of news items: selection and order, cached per client, language and app version."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Final

from services.news.models import NewsItem, Reader

MAX_LISTED: Final = 100
"""Items in one reply. Apps show a handful; the bound limits the effect of an operator's mistake."""
MAX_CACHED_APPS: Final = 1024
"""Combinations of client, language and app version in the cache."""
App = tuple[str, str | None, str | None]
"""Client ID, language and app version."""


class Feed:
    """News items that are live or will be, in the order in which they are listed.

    The live items are selected anew whenever an item starts or ends.
    """

    def __init__(self, items: Iterable[NewsItem]) -> None:
        self._items = sorted(items, key=lambda item: (item.priority, item.starts_at, item.id), reverse=True)
        self._live: list[NewsItem] = []
        self._valid_from: datetime | None = None
        self._valid_until: datetime | None = None
        self._by_app: OrderedDict[App, list[NewsItem]] = OrderedDict()

    def list_for(self, reader: Reader, *, at: datetime) -> list[NewsItem]:
        """Return a reader's items at a time: highest priority first, then newest first, at most ``MAX_LISTED``."""
        if self._valid_from is None or at < self._valid_from or (self._valid_until and at >= self._valid_until):
            self._select_live(at)
        return list(islice((item for item in self._for_app(reader) if item.is_for_user(reader)), MAX_LISTED))

    def _select_live(self, at: datetime) -> None:
        """Select the items that are live from now until the next start or end of an item."""
        times = [time for item in self._items for time in (item.starts_at, item.ends_at) if time is not None]
        self._live = [item for item in self._items if item.is_live(at=at)]
        self._valid_from, self._valid_until = at, min((time for time in times if time > at), default=None)
        self._by_app.clear()

    def _for_app(self, reader: Reader) -> list[NewsItem]:
        """Return the live items for the reader's app, whoever its user is."""
        app = (reader.client_id, reader.locale, reader.app_version)
        items = self._by_app.get(app)
        if items is None:
            items = self._by_app[app] = [item for item in self._live if item.target.includes_app(reader)]
            if len(self._by_app) > MAX_CACHED_APPS:
                self._by_app.popitem(last=False)
        else:
            self._by_app.move_to_end(app)
        return items
