import time
from datetime import UTC, datetime, timedelta
from typing import Any

from services.news.feed import MAX_CACHED_APPS, Feed
from services.news.models import NewsItem, Reader, Target
from shared.messages.news import Banner, BannerContent

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
BANNER = BannerContent(payload=Banner(emoji="", title="t", body="b"))
READER = Reader(client_id="a", locale="en-GB", app_version="1.2.3")


def item(number: int, *, starts: timedelta = -HOUR, ends: timedelta | None = None, **target: Any) -> NewsItem:
    return NewsItem(
        id=f"newsitem_{number:05}",
        primary=BANNER,
        fallback=None,
        target=Target(**target),
        starts_at=NOW + starts,
        ends_at=None if ends is None else NOW + ends,
        created_at=NOW,
        updated_at=NOW,
    )


def ids(feed: Feed, at: datetime, reader: Reader = READER) -> list[str]:
    return [item.id for item in feed.list_for(reader, at=at)]


def test_items_start_and_end_on_time_after_earlier_requests() -> None:
    feed = Feed([item(1), item(2, starts=HOUR), item(3, ends=2 * HOUR)])
    millisecond = timedelta(milliseconds=1)
    # Twice: messages may be handled out of order, so time may go backwards.
    for _ in range(2):
        assert ids(feed, NOW) == ["newsitem_00003", "newsitem_00001"]
        assert ids(feed, NOW + HOUR - millisecond) == ["newsitem_00003", "newsitem_00001"]
        assert ids(feed, NOW + HOUR) == ["newsitem_00002", "newsitem_00003", "newsitem_00001"]
        assert ids(feed, NOW + 2 * HOUR - millisecond) == ["newsitem_00002", "newsitem_00003", "newsitem_00001"]
        assert ids(feed, NOW + 2 * HOUR) == ["newsitem_00002", "newsitem_00001"]


def test_users_of_the_same_app_get_different_items() -> None:
    feed = Feed([item(1, subscriptions=("active",)), item(2)])
    subscriber = Reader(client_id="a", subscriptions=frozenset({"active"}))
    dismisser = Reader(client_id="a", subscriptions=frozenset({"active"}), dismissed=frozenset({"newsitem_00002"}))
    anonymous = Reader(client_id="a")
    for _ in range(2):
        assert ids(feed, NOW, subscriber) == ["newsitem_00002", "newsitem_00001"]
        assert ids(feed, NOW, dismisser) == ["newsitem_00001"]
        assert ids(feed, NOW, anonymous) == ["newsitem_00002"]


def test_cache_of_apps_is_bounded() -> None:
    feed = Feed([item(1, locales=("de",))])
    for number in range(MAX_CACHED_APPS + 10):
        assert ids(feed, NOW, Reader(client_id="a", locale="de", app_version=str(number))) == ["newsitem_00001"]
    assert len(feed._by_app) == MAX_CACHED_APPS


def test_listing_does_not_scan_ten_thousand_items_each_time() -> None:
    for target in ({"locales": ("de", "fr")}, {"min_app_version": "99.1"}, {"clients": ("x", "y")}, {}):
        feed = Feed([item(number, **target) for number in range(10_000)])
        feed.list_for(READER, at=NOW)
        began = time.process_time()
        for _ in range(100):
            feed.list_for(READER, at=NOW)
        # About 5 ms on an idle machine; 2 s if every item is checked each time.
        assert time.process_time() - began < 0.5
