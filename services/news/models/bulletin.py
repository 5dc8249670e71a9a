"""What is shown now, and to whom? Found once for all who ask alike, until something begins or ends."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Final

from services.news.models.items import NewsItem, Reader

MOST_LISTED: Final = 100
"""An app shows a handful; a bound keeps a slip of an operator from filling every answer."""
MOST_KINDS: Final = 1024
"""So many kinds of readers (app, language, version) are remembered."""
Kind = tuple[str, str | None, str | None]


class Bulletin:
    """Items in the order in which they are shown.

    Args:
        items: those that are or will be live.
    """

    def __init__(self, items: Iterable[NewsItem]) -> None:
        self._items = sorted(items, key=lambda item: (item.priority, item.starts_at, item.id), reverse=True)
        self._live: list[NewsItem] = []
        self._from: datetime | None = None
        self._until: datetime | None = None
        self._by_kind: OrderedDict[Kind, list[NewsItem]] = OrderedDict()

    def shown(self, reader: Reader, *, at: datetime) -> list[NewsItem]:
        """What a reader is shown at a moment, the most important and then the newest first; 100 at most."""
        if self._from is None or at < self._from or (self._until is not None and at >= self._until):
            self._turn(at)
        return list(islice((item for item in self._for_kind(reader) if item.shown_to(reader)), MOST_LISTED))

    def _turn(self, at: datetime) -> None:
        """Find what is live from now on until an item begins or ends."""
        turns = [turn for item in self._items for turn in (item.starts_at, item.ends_at) if turn is not None]
        self._live = [item for item in self._items if item.live(at=at)]
        self._from, self._until = at, min((turn for turn in turns if turn > at), default=None)
        self._by_kind.clear()

    def _for_kind(self, reader: Reader) -> list[NewsItem]:
        """What is for the reader's kind of app, whoever they are."""
        kind = (reader.client_id, reader.locale, reader.app_version)
        found = self._by_kind.get(kind)
        if found is None:
            found = self._by_kind[kind] = [item for item in self._live if item.target.fits_app(reader)]
            if len(self._by_kind) > MOST_KINDS:
                self._by_kind.popitem(last=False)
        else:
            self._by_kind.move_to_end(kind)
        return found
