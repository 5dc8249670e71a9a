"""What does news do with each message?"""

from __future__ import annotations

from dataclasses import dataclass

from services.news.models import NewsItem
from services.news.store import Clients, NewsItems
from shared.handling import Handler
from shared.messages import Message
from shared.messages.auth import ClientCreated
from shared.messages.news import CreateNewsItem, ListNewsItems, NewsItemCreated, NewsItemList, NewsItemView
from shared.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What the handlers work with.

    Attributes:
        items: the news items.
        clients: the clients that auth has announced.
        action_schemes: URL schemes that a button may use, in lower case.
    """

    items: NewsItems
    clients: Clients
    action_schemes: frozenset[str]


async def list_news_items(query: ListNewsItems, work: Work, news: News) -> NewsItemList:
    """The items live now for a client; none for one that nobody has registered."""
    if not await news.clients.known(query.client_id):
        return NewsItemList(())
    live = await news.items.live(query.client_id, at=work.now)
    return NewsItemList(tuple(item.view() for item in live))


async def create_news_item(command: CreateNewsItem, work: Work, news: News) -> NewsItemView:
    """Publish an item."""
    item = NewsItem.create(command, id=command.id or work.new_id("newsitem"), schemes=news.action_schemes, at=work.now)
    news.items.add(item, work)
    work.publish(NewsItemCreated(key=item.id, item_id=item.id))
    return item.view()


async def client_created(event: ClientCreated, work: Work, news: News) -> None:
    """Remember a client that auth has registered; it may be announced more than once."""
    if not await news.clients.known(event.client_id):
        news.clients.add(event.client_id, work)


HANDLERS: dict[type[Message], Handler] = {
    ListNewsItems: list_news_items,
    CreateNewsItem: create_news_item,
    ClientCreated: client_created,
}
