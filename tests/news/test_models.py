from datetime import UTC, datetime, timedelta

import pytest

from services.news.errors import ActionUrlNotAllowed, NewsItemEndsBeforeItStarts
from services.news.models import NewsItem, check_action_url
from shared.messages.news import Action, Banner, Content, CreateNewsItem

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
SCHEMES = frozenset({"https", "http", "beak"})


def banner(url: str | None = None) -> Content:
    action = None if url is None else Action(cta="Look", url=url)
    return Content(payload=Banner(emoji="🐦", title="A title", body="A body.", action=action))


def create(order: CreateNewsItem) -> NewsItem:
    return NewsItem.create(order, id="newsitem_1", schemes=SCHEMES, at=NOW)


def test_an_item_starts_now_and_never_ends_unless_told() -> None:
    item = create(CreateNewsItem(primary=banner()))
    assert (item.starts_at, item.ends_at, item.clients) == (NOW, None, None)


@pytest.mark.parametrize("length", [timedelta(0), timedelta(seconds=-1)])
def test_an_item_that_ends_before_it_starts_is_refused(length: timedelta) -> None:
    start = NOW + timedelta(days=1)
    with pytest.raises(NewsItemEndsBeforeItStarts):
        create(CreateNewsItem(primary=banner(), starts_at=start, ends_at=start + length))


def test_an_item_without_a_start_may_not_end_in_the_past() -> None:
    with pytest.raises(NewsItemEndsBeforeItStarts):
        create(CreateNewsItem(primary=banner(), ends_at=NOW - timedelta(minutes=1)))


@pytest.mark.parametrize(
    "url", ["https://getbeak.app/news?a=1#b", "http://127.0.0.1:8080/", "beak://settings/theme", "HTTPS://getbeak.app"]
)
def test_a_button_may_lead_to_the_web_and_into_our_apps(url: str) -> None:
    check_action_url(url, SCHEMES)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "other://settings",
        "/news",
        "https:///news",
        "https:news",
        "https://",
        "https://bank.example@evil.example",
        "https://evil.example\\@bank.example",
        "https://getbeak.app/\nx",
        "https://getbeak.app/\u202e",
        " https://getbeak.app",
        "https://[::1",
        "",
    ],
)
def test_a_button_leads_nowhere_else(url: str) -> None:
    with pytest.raises(ActionUrlNotAllowed) as refused:
        check_action_url(url, SCHEMES)
    assert refused.value.meta == {"schemes": ["beak", "http", "https"]}


def test_the_fallback_is_held_to_the_same_rules() -> None:
    with pytest.raises(ActionUrlNotAllowed):
        create(CreateNewsItem(primary=banner(), fallback=banner("javascript:alert(1)")))
