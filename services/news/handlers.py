"""What does news do with each message?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from services.news.board import Board
from services.news.models.items import NewsItem, Reader
from services.news.models.links import Links
from services.news.store import Dismissals, NewsItems, Subscriptions
from shared.bus.handling import Handler
from shared.bus.work import Work
from shared.messages import Message
from shared.messages.billing.subscriptions import SubscriptionChanged, SubscriptionEnded, SubscriptionStarted
from shared.messages.news import (
    CreateNewsItem,
    DismissNewsItem,
    ListAllNewsItems,
    ListNewsItems,
    NewsItemCreated,
    NewsItemDetails,
    NewsItemDetailsList,
    NewsItemList,
    NewsItemRemoved,
    NewsItemUpdated,
    RemoveNewsItem,
    UpdateNewsItem,
)
from shared.messages.personal_data import EraseUserFromNews, ExportUserFromNews
from shared.personal_data.erasure import erase_part, finish_erasure
from shared.personal_data.export import export_part
from shared.personal_data.subjects import PersonalDataCollection
from shared.sealing import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What the handlers work with.

    Attributes:
        board: what is up, in memory.
        items: the news items.
        dismissals: what users have put away.
        subscriptions: how users subscribe, as billing says.
        links: where an item may lead.
        held: what is held on people.
        sealer: opens what is sealed for news.
    """

    board: Board
    items: NewsItems
    dismissals: Dismissals
    subscriptions: Subscriptions
    links: Links
    held: Sequence[PersonalDataCollection]
    sealer: Sealer


async def list_news_items(query: ListNewsItems, work: Work, news: News) -> NewsItemList:
    """The items live now for whoever asks; none for a client that nobody has registered.

    A stranger is answered from memory. For a user two questions are asked: what they put away, how they subscribe.
    """
    if not news.board.known(query.client_id):
        return NewsItemList(())
    reader = Reader(client_id=query.client_id, locale=query.locale, app_version=query.app_version)
    if work.caller.user_id is not None:
        dismissed, subscriptions = await asyncio.gather(
            news.dismissals.of_user(work.caller.user_id), news.subscriptions.states(work.caller.user_id)
        )
        reader = Reader(
            client_id=query.client_id,
            locale=query.locale,
            app_version=query.app_version,
            subscriptions=subscriptions,
            dismissed=dismissed,
        )
    return NewsItemList(tuple(item.view() for item in news.board.shown(reader, at=work.now)))


async def dismiss_news_item(command: DismissNewsItem, work: Work, news: News) -> None:
    """Remember that a user wants to see an item no more.

    Raises:
        NewsItemNotFound: there is no such item.
        NewsItemNotDismissible: it is to stay.
    """
    item, dismissed = await asyncio.gather(
        news.items.get(command.news_item_id), news.dismissals.of_user(command.user_id)
    )
    work.annotate(resource_id=item.id)
    item.must_be_dismissible()
    if item.id not in dismissed:
        news.dismissals.add(command.user_id, item, work)


async def create_news_item(command: CreateNewsItem, work: Work, news: News) -> NewsItemDetails:
    """Publish an item.

    Raises:
        Refusal: as ``NewsItem.create``.
        NewsItemAlreadyExists: the id is taken.
    """
    item = NewsItem.create(command, id=command.id or work.new_id("newsitem"), links=news.links, at=work.now)
    news.items.add(item, work)
    work.annotate(resource_id=item.id)
    work.publish(NewsItemCreated(key=item.id, item_id=item.id))
    return item.details()


async def update_news_item(command: UpdateNewsItem, work: Work, news: News) -> NewsItemDetails:
    """Say anew what an item is.

    Raises:
        NewsItemNotFound: there is none.
        NewsItemChanged: somebody was quicker.
        Refusal: as ``NewsItem.create``.
    """
    held = await news.items.get(command.id)
    work.annotate(resource_id=held.id)
    held.must_be(command.version)
    item = held.update(command, links=news.links, at=work.now)
    news.items.save(item, work)
    work.publish(NewsItemUpdated(key=item.id, item_id=item.id))
    return item.details().model_copy(update={"version": item.version + 1})


async def remove_news_item(command: RemoveNewsItem, work: Work, news: News) -> None:
    """Take an item away.

    Raises:
        NewsItemNotFound: there is none.
        NewsItemChanged: somebody was quicker.
    """
    item = await news.items.get(command.id)
    work.annotate(resource_id=item.id)
    item.must_be(command.version)
    news.items.remove(item, work)
    work.publish(NewsItemRemoved(key=item.id, item_id=item.id))


async def list_all_news_items(query: ListAllNewsItems, _work: Work, news: News) -> NewsItemDetailsList:
    """A page of all the items there are, for operators.

    Raises:
        NewsItemNotFound: the last item of the page before is gone.
    """
    items = await news.items.page(query.client_id, cursor=query.cursor, limit=query.limit)
    return NewsItemDetailsList(tuple(item.details() for item in items))


async def follow_subscription(
    event: SubscriptionStarted | SubscriptionChanged | SubscriptionEnded, work: Work, news: News
) -> None:
    """Remember how a user subscribes."""
    await news.subscriptions.record(event.subscription_id, event.user_id, event.status, work)


async def export_user_from_news(command: ExportUserFromNews, work: Work, news: News) -> None:
    """Hand over what is held on a user, a part at a time."""
    await export_part(command, work, news.held, sealer=news.sealer)


async def erase_user_from_news(command: EraseUserFromNews, work: Work, news: News) -> None:
    """Remove what is held on a user, some at a time."""
    if await erase_part(command, work, news.held, sealer=news.sealer):
        finish_erasure(command, work)


HANDLERS: dict[type[Message], Handler] = {
    ListNewsItems: list_news_items,
    DismissNewsItem: dismiss_news_item,
    CreateNewsItem: create_news_item,
    UpdateNewsItem: update_news_item,
    RemoveNewsItem: remove_news_item,
    ListAllNewsItems: list_all_news_items,
    ExportUserFromNews: export_user_from_news,
    EraseUserFromNews: erase_user_from_news,
    SubscriptionStarted: follow_subscription,
    SubscriptionChanged: follow_subscription,
    SubscriptionEnded: follow_subscription,
}
