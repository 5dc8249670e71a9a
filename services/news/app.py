"""Composition of news: builds its context from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from services.news.context import News
from services.news.handlers import HANDLERS
from services.news.item_cache import ItemCache
from services.news.models import AllowedUrls
from services.news.settings import NewsSettings
from services.news.store import Dismissals, NewsItems, Subscriptions, personal_data
from shared.messages.auth.clients import ClientAnnounced
from shared.messages.news import NewsItemCreated
from shared.messages.republishing import REPUBLISHING
from shared.migrations import Migrations
from shared.mongo import indexes_of
from shared.service import Resources, Service
from shared.settings import load

TOPICS: Final = ("news.commands", "billing.events", REPUBLISHING)
INDEXES: Final = indexes_of(NewsItems, Dismissals, Subscriptions)
"""Indexes by collection, created before the first message is handled."""
MIGRATIONS: Final = Migrations()


def create(settings: NewsSettings | None = None) -> Service:
    """Create the service; it runs while it is entered.

    Raises:
        SettingsError: a variable is missing or invalid.
    """
    loaded = settings or load(NewsSettings)
    return Service(
        loaded,
        name="news",
        handlers=HANDLERS,
        topics=TOPICS,
        indexes=INDEXES,
        open_context=partial(open_context, settings=loaded),
        migrations=MIGRATIONS,
    )


@asynccontextmanager
async def open_context(resources: Resources, settings: NewsSettings) -> AsyncIterator[News]:
    """Build the context of the handlers. All clients and items are loaded before the first message is handled."""
    items = NewsItems(resources.database)
    item_cache = ItemCache(items, resources.clock)
    await resources.follow(ClientAnnounced.topic, item_cache.on_client_event)
    await resources.follow(NewsItemCreated.topic, item_cache.on_item_event)
    async with item_cache.running():
        yield News(
            item_cache=item_cache,
            items=items,
            dismissals=Dismissals(resources.database),
            subscriptions=Subscriptions(resources.database),
            allowed_urls=AllowedUrls(frozenset(settings.news_action_schemes), frozenset(settings.news_action_hosts)),
            personal_data=personal_data(resources.database),
            sealer=resources.sealer,
        )
