"""Context of the handlers of news: its stores and the item cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.news.item_cache import ItemCache
from services.news.models import AllowedUrls
from services.news.store import Dismissals, NewsItems, Subscriptions
from shared.personal_data.subjects import PersonalDataCollection
from shared.sealing import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Stores and adapters of news, built in ``app.py``."""

    item_cache: ItemCache
    items: NewsItems
    dismissals: Dismissals
    subscriptions: Subscriptions
    allowed_urls: AllowedUrls
    personal_data: Sequence[PersonalDataCollection]
    sealer: Sealer
