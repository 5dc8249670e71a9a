"""How is the news service put together?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from services.news.handlers import HANDLERS, News
from services.news.settings import NewsSettings
from services.news.store import INDEXES, Clients, NewsItems
from shared.service import Parts, Service
from shared.settings import load

TOPICS = ("news.commands", "auth.events")


def create(settings: NewsSettings | None = None) -> Service:
    """The service, running while it is entered.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    chosen = settings or load(NewsSettings)
    return Service(
        chosen,
        name="news",
        handlers=HANDLERS,
        topics=TOPICS,
        indexes=INDEXES,
        open=partial(opened, settings=chosen),
    )


@asynccontextmanager
async def opened(parts: Parts, settings: NewsSettings) -> AsyncIterator[News]:
    """What the handlers work with."""
    yield News(
        items=NewsItems(parts.database),
        clients=Clients(parts.database),
        action_schemes=frozenset(settings.news_action_schemes),
    )
