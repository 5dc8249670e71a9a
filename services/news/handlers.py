"""Handlers of news."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from services.news.context import News
from services.news.models import NewsItem, Reader
from shared.bus.handling import Handlers
from shared.bus.work import Work
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


async def list_news_items(query: ListNewsItems, work: Work, news: News) -> NewsItemList:
    """Return the live items for the caller; none for an unregistered client.

    Callers without a user are answered from memory. For a user, dismissals and subscription states are read.
    """
    if not news.item_cache.has_client(query.client_id):
        return NewsItemList(())
    reader = Reader(client_id=query.client_id, locale=query.locale, app_version=query.app_version)
    if work.caller.user_id is not None:
        dismissed, subscriptions = await asyncio.gather(
            news.dismissals.list_item_ids(work.caller.user_id), news.subscriptions.list_states(work.caller.user_id)
        )
        reader = replace(reader, subscriptions=subscriptions, dismissed=dismissed)
    return NewsItemList(tuple(item.view() for item in news.item_cache.list_for(reader, at=work.now)))


async def dismiss_news_item(command: DismissNewsItem, work: Work, news: News) -> None:
    """Dismiss an item for a user.

    Raises:
        NewsItemNotFound: no item has this ID.
        NewsItemNotDismissible: the item cannot be dismissed.
    """
    item, dismissed = await asyncio.gather(
        news.items.get(command.news_item_id), news.dismissals.list_item_ids(command.user_id)
    )
    work.annotate(resource_id=item.id)
    item.check_dismissible()
    if item.id not in dismissed:
        news.dismissals.add(command.user_id, item, work)


async def create_news_item(command: CreateNewsItem, work: Work, news: News) -> NewsItemDetails:
    """Create an item.

    Raises:
        Refusal: as ``NewsItem.create``.
        NewsItemAlreadyExists: an item with this ID exists.
    """
    item_id = command.id or work.new_id("newsitem")
    item = NewsItem.create(command, id=item_id, allowed_urls=news.allowed_urls, at=work.now)
    news.items.add(item, work)
    work.annotate(resource_id=item.id)
    work.publish(NewsItemCreated(key=item.id, item_id=item.id))
    return item.details()


async def update_news_item(command: UpdateNewsItem, work: Work, news: News) -> NewsItemDetails:
    """Replace an item.

    Raises:
        NewsItemNotFound: no item has this ID.
        NewsItemChanged: the item has changed since the command's version.
        Refusal: as ``NewsItem.create``.
    """
    stored = await news.items.get(command.id)
    work.annotate(resource_id=stored.id)
    stored.check_version(command.version)
    item = stored.update(command, allowed_urls=news.allowed_urls, at=work.now)
    news.items.save(item, work)
    work.publish(NewsItemUpdated(key=item.id, item_id=item.id))
    return item.details().model_copy(update={"version": item.version + 1})


async def remove_news_item(command: RemoveNewsItem, work: Work, news: News) -> None:
    """Delete an item.

    Raises:
        NewsItemNotFound: no item has this ID.
        NewsItemChanged: the item has changed since the command's version.
    """
    item = await news.items.get(command.id)
    work.annotate(resource_id=item.id)
    item.check_version(command.version)
    news.items.remove(item, work)
    work.publish(NewsItemRemoved(key=item.id, item_id=item.id))


async def list_all_news_items(query: ListAllNewsItems, _work: Work, news: News) -> NewsItemDetailsList:
    """Return a page of all items, for operators.

    Raises:
        NewsItemNotFound: the cursor's item was deleted.
    """
    items = await news.items.list_page(query.client_id, cursor=query.cursor, limit=query.limit)
    return NewsItemDetailsList(tuple(item.details() for item in items))


async def store_subscription_status(
    event: SubscriptionStarted | SubscriptionChanged | SubscriptionEnded, work: Work, news: News
) -> None:
    """Store the state of a user's subscription."""
    await news.subscriptions.store_status(event.subscription_id, event.user_id, event.status, work)


async def export_user_from_news(command: ExportUserFromNews, work: Work, news: News) -> None:
    """Export one part of a user's personal data, and order the next part."""
    await export_part(command, work, news.personal_data, sealer=news.sealer)


async def erase_user_from_news(command: EraseUserFromNews, work: Work, news: News) -> None:
    """Erase some of a user's personal data, and order the rest."""
    if await erase_part(command, work, news.personal_data, sealer=news.sealer):
        finish_erasure(command, work)


HANDLERS: Handlers = {
    ListNewsItems: list_news_items,
    DismissNewsItem: dismiss_news_item,
    CreateNewsItem: create_news_item,
    UpdateNewsItem: update_news_item,
    RemoveNewsItem: remove_news_item,
    ListAllNewsItems: list_all_news_items,
    ExportUserFromNews: export_user_from_news,
    EraseUserFromNews: erase_user_from_news,
    SubscriptionStarted: store_subscription_status,
    SubscriptionChanged: store_subscription_status,
    SubscriptionEnded: store_subscription_status,
}
