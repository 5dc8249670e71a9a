import asyncio
from collections.abc import Callable
from datetime import timedelta

from services.news.settings import NewsSettings
from shared.messages.news import (
    ListNewsItems,
    NewsItemCreated,
    NewsItemRemoved,
    NewsItemUpdated,
    RemoveNewsItem,
    UpdateNewsItem,
)
from tests.news.conftest import CLIENT, client_event, news_harness
from tests.news.test_handlers import banner, create, titles
from tests.service_harness import ServiceHarness


async def cached_titles(harness: ServiceHarness) -> list[str]:
    """Titles of the listed items, without a reload of the cache."""
    items = await harness.deliver(ListNewsItems(client_id=CLIENT))
    return [item["primary"]["payload"]["title"] for item in items]


async def wait_for_titles(harness: ServiceHarness, expected: list[str]) -> None:
    async with asyncio.timeout(10):
        while await cached_titles(harness) != expected:  # noqa: ASYNC110 -- the cache's state
            await asyncio.sleep(0.01)


async def test_events_of_changes_reload_the_cache(harness: ServiceHarness) -> None:
    await create(harness, "one", id="newsitem_1")
    await wait_for_titles(harness, ["one"])
    await harness.deliver(UpdateNewsItem(id="newsitem_1", primary=banner("two")))
    await wait_for_titles(harness, ["two"])
    await harness.deliver(RemoveNewsItem(id="newsitem_1"))
    await wait_for_titles(harness, [])
    assert harness.published == [
        NewsItemCreated(item_id="newsitem_1"),
        NewsItemUpdated(item_id="newsitem_1"),
        NewsItemRemoved(item_id="newsitem_1"),
    ]


async def test_change_at_one_instance_is_listed_by_another(
    harness: ServiceHarness, mongo_url: str, settings: Callable[..., NewsSettings]
) -> None:
    async with news_harness(mongo_url, harness.database.name, settings()) as other:
        other.publish_to_followers(client_event(CLIENT))

        async def other_lists(expected: list[str]) -> None:
            # Delivered by hand in place of Kafka.
            other.publish_to_followers(harness.published[-1])
            await wait_for_titles(other, expected)

        await create(harness, "one", id="newsitem_1")
        await other_lists(["one"])
        await harness.deliver(UpdateNewsItem(id="newsitem_1", primary=banner("two")))
        await other_lists(["two"])
        await harness.deliver(RemoveNewsItem(id="newsitem_1"))
        await other_lists([])


async def test_reload_reads_changed_items_only(harness: ServiceHarness) -> None:
    for number in range(3):
        await create(harness, str(number), id=f"newsitem_{number}")
    cache = harness.context.item_cache
    await cache.reload()
    before = dict(cache._items)
    harness.now += timedelta(seconds=1)
    await harness.deliver(UpdateNewsItem(id="newsitem_1", primary=banner("changed")))
    # Deleted and created again under the same ID, with the same version.
    await harness.deliver(RemoveNewsItem(id="newsitem_2"))
    await create(harness, "another", id="newsitem_2")
    await cache.reload()
    assert cache._items["newsitem_0"] is before["newsitem_0"]
    assert {item.primary.payload.title for item in cache._items.values()} == {"0", "changed", "another"}
    await harness.deliver(RemoveNewsItem(id="newsitem_0"))
    await cache.reload()
    assert set(cache._items) == {"newsitem_1", "newsitem_2"}


async def test_anonymous_reader_is_answered_during_a_mongodb_outage(harness: ServiceHarness) -> None:
    await create(harness, "one")
    assert await titles(harness) == ["one"]
    await harness._client.close()
    (item,) = await harness.deliver(ListNewsItems(client_id=CLIENT, locale="de", app_version="1.0"))
    assert item["primary"]["payload"]["title"] == "one"


async def test_client_registered_later_gets_the_live_items(harness: ServiceHarness) -> None:
    await create(harness, "for all")
    assert await titles(harness, "client_new") == []
    harness.publish_to_followers(client_event("client_new"))
    assert await titles(harness, "client_new") == ["for all"]
