"""What is shown, as time goes by and however many items and kinds of readers there are."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from services.news.models.bulletin import MOST_KINDS, Bulletin
from services.news.models.items import NewsItem, Reader, Target
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
        priority=0,
        starts_at=NOW + starts,
        ends_at=None if ends is None else NOW + ends,
        created_at=NOW,
        updated_at=NOW,
    )


def ids(bulletin: Bulletin, at: datetime, reader: Reader = READER) -> list[str]:
    return [shown.id for shown in bulletin.shown(reader, at=at)]


def test_items_begin_and_end_at_their_moment_however_often_was_asked_before() -> None:
    bulletin = Bulletin([item(1), item(2, starts=HOUR), item(3, ends=2 * HOUR)])
    moment = timedelta(milliseconds=1)
    # Twice, as when messages are handled out of order.
    for _ in range(2):
        assert ids(bulletin, NOW) == ["newsitem_00003", "newsitem_00001"]
        assert ids(bulletin, NOW + HOUR - moment) == ["newsitem_00003", "newsitem_00001"]
        assert ids(bulletin, NOW + HOUR) == ["newsitem_00002", "newsitem_00003", "newsitem_00001"]
        assert ids(bulletin, NOW + 2 * HOUR - moment) == ["newsitem_00002", "newsitem_00003", "newsitem_00001"]
        assert ids(bulletin, NOW + 2 * HOUR) == ["newsitem_00002", "newsitem_00001"]


def test_readers_of_one_kind_of_app_are_still_different_people() -> None:
    bulletin = Bulletin([item(1, subscriptions=("active",)), item(2)])
    paying = Reader(client_id="a", subscriptions=frozenset({"active"}))
    tired = Reader(client_id="a", subscriptions=frozenset({"active"}), dismissed=frozenset({"newsitem_00002"}))
    stranger = Reader(client_id="a")
    for _ in range(2):
        assert ids(bulletin, NOW, paying) == ["newsitem_00002", "newsitem_00001"]
        assert ids(bulletin, NOW, tired) == ["newsitem_00001"]
        assert ids(bulletin, NOW, stranger) == ["newsitem_00002"]


def test_no_more_kinds_of_readers_are_remembered_than_there_is_room_for() -> None:
    bulletin = Bulletin([item(1, locales=("de",))])
    for number in range(MOST_KINDS + 10):
        assert ids(bulletin, NOW, Reader(client_id="a", locale="de", app_version=str(number))) == ["newsitem_00001"]
    assert len(bulletin._by_kind) == MOST_KINDS


def test_ten_thousand_items_cost_a_reader_next_to_nothing() -> None:
    for target in ({"locales": ("de", "fr")}, {"min_app_version": "99.1"}, {"clients": ("x", "y")}, {}):
        bulletin = Bulletin([item(number, **target) for number in range(10_000)])
        bulletin.shown(READER, at=NOW)
        began = time.process_time()
        for _ in range(100):
            bulletin.shown(READER, at=NOW)
        # Some 5 ms on a quiet machine, 2 s when every item is looked at each time.
        assert time.process_time() - began < 0.5
