"""How is the news service put together?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from services.news.board import Board
from services.news.handlers import HANDLERS, News
from services.news.models.links import Links
from services.news.people import holdings
from services.news.settings import NewsSettings
from services.news.store import INDEXES, Dismissals, NewsItems, Subscriptions
from shared.messages.auth.clients import ClientAnnounced
from shared.messages.news import NewsItemCreated
from shared.service import Resources, Service
from shared.settings import load

TOPICS = ("news.commands", "billing.events")


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
        open_context=partial(opened, settings=chosen),
    )


@asynccontextmanager
async def opened(resources: Resources, settings: NewsSettings) -> AsyncIterator[News]:
    """What the handlers work with. The clients and the items that there are have been read before the first message."""
    items = NewsItems(resources.database)
    board = Board(items, resources.clock)
    await resources.follow(ClientAnnounced.topic, board.hear_of_client)
    await resources.follow(NewsItemCreated.topic, board.hear_of_items)
    async with board.kept_fresh():
        yield News(
            board=board,
            items=items,
            dismissals=Dismissals(resources.database),
            subscriptions=Subscriptions(resources.database),
            held=holdings(resources.database),
            sealer=resources.sealer,
            links=Links(frozenset(settings.news_action_schemes), frozenset(settings.news_action_hosts)),
        )
