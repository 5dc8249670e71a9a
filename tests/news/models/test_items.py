from datetime import UTC, datetime, timedelta

import pytest

from services.news.models.items import NewsItem, Reader, Target
from services.news.models.links import Links
from shared.messages.news import (
    Action,
    ActionUrlNotAllowed,
    Banner,
    BannerContent,
    CreateNewsItem,
    FallbackMissing,
    NewsItemChanged,
    NewsItemEndsBeforeItStarts,
    NewsItemNotDismissible,
    NoSuchAppVersion,
    OtherContent,
    UpdateNewsItem,
)

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
LINKS = Links(frozenset({"https", "http", "beak"}))


def banner(url: str | None = None, *, dismissible: bool = True) -> BannerContent:
    action = None if url is None else Action(cta="Look", url=url)
    payload = Banner(emoji="🐦", title="A title", body="A body.", action=action)
    return BannerContent(dismissible=dismissible, payload=payload)


def create(order: CreateNewsItem, links: Links = LINKS) -> NewsItem:
    return NewsItem.create(order, id="newsitem_1", links=links, at=NOW)


def test_an_item_starts_now_and_never_ends_unless_told() -> None:
    item = create(CreateNewsItem(primary=banner()))
    assert (item.starts_at, item.ends_at, item.target) == (NOW, None, Target())


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
    create(CreateNewsItem(primary=banner(url)))


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
        LINKS.check(banner().model_copy(update={"payload": banner("x").payload.model_copy(update=_leading_to(url))}))
    assert refused.value.meta == {"schemes": ["beak", "http", "https"], "hosts": []}


def _leading_to(url: str) -> dict[str, Action]:
    # Past the message's own check, which lets no empty one in.
    return {"action": Action.model_construct(cta="Look", url=url)}


def test_the_fallback_is_held_to_the_same_rules() -> None:
    with pytest.raises(ActionUrlNotAllowed):
        create(CreateNewsItem(primary=banner(), fallback=banner("javascript:alert(1)")))


@pytest.mark.parametrize("url", ["https://nest.example/a", "http://news.nest.example:8080/", "beak://settings"])
def test_where_hosts_are_named_the_web_means_those_and_what_is_under_them(url: str) -> None:
    create(CreateNewsItem(primary=banner(url)), Links(LINKS.schemes, frozenset({"nest.example"})))


@pytest.mark.parametrize("url", ["https://evilnest.example/", "https://nest.example.evil/", "https://example/"])
def test_a_host_that_merely_looks_like_an_allowed_one_is_refused(url: str) -> None:
    with pytest.raises(ActionUrlNotAllowed) as refused:
        create(CreateNewsItem(primary=banner(url)), Links(LINKS.schemes, frozenset({"nest.example"})))
    assert refused.value.meta["hosts"] == ["nest.example"]


def test_a_code_that_not_every_app_knows_needs_a_banner_to_fall_back_to() -> None:
    video = OtherContent(code="video", payload={"url": "https://nest.example/v"})
    with pytest.raises(FallbackMissing):
        create(CreateNewsItem(primary=video))
    with pytest.raises(FallbackMissing):
        create(CreateNewsItem(primary=video, fallback=video))
    assert create(CreateNewsItem(primary=video, fallback=banner())).primary == video


def test_every_url_in_content_of_another_kind_is_held_to_the_rules() -> None:
    for payload in ({"url": "javascript:alert(1)"}, {"steps": [{"button": {"url": "file:///x"}}]}, {"url": 1}):
        with pytest.raises(ActionUrlNotAllowed):
            create(CreateNewsItem(primary=OtherContent(code="tour", payload=payload), fallback=banner()))


@pytest.mark.parametrize(
    ("target", "reader", "fits"),
    [
        (Target(), Reader(client_id="a"), True),
        (Target(clients=("a", "b")), Reader(client_id="b"), True),
        (Target(clients=("a",)), Reader(client_id="b"), False),
        (Target(locales=("de",)), Reader(client_id="a", locale="de-AT"), True),
        (Target(locales=("de",)), Reader(client_id="a", locale="DE"), True),
        (Target(locales=("de",)), Reader(client_id="a", locale="den"), False),
        (Target(locales=("de-AT", "fr")), Reader(client_id="a", locale="de"), False),
        (Target(locales=("de",)), Reader(client_id="a"), False),
        (Target(min_app_version="2.9"), Reader(client_id="a", app_version="2.10"), True),
        (Target(min_app_version="2.9"), Reader(client_id="a", app_version="2.8.9"), False),
        (Target(max_app_version="2.9"), Reader(client_id="a", app_version="2.9.0-beta.3"), True),
        (Target(max_app_version="2.9"), Reader(client_id="a", app_version="2.9.1"), False),
        (Target(min_app_version="1.9"), Reader(client_id="a", app_version="1.10"), True),
        (Target(max_app_version="1.9"), Reader(client_id="a", app_version="1.10"), False),
        (Target(min_app_version="2.9"), Reader(client_id="a", app_version="2.9.0-beta.3"), False),
        (Target(min_app_version="2.9-beta.2"), Reader(client_id="a", app_version="2.9.0-beta.11"), True),
        (Target(max_app_version="2.9"), Reader(client_id="a", app_version="2.9.0+build.7"), True),
        (Target(locales=("fr",)), Reader(client_id="a", locale="fr-CA"), True),
        (Target(locales=("fr-CA",)), Reader(client_id="a", locale="fr-CA"), True),
        (Target(locales=("fr-CA",)), Reader(client_id="a", locale="fr"), False),
        (Target(locales=("fr-CA",)), Reader(client_id="a", locale="fr-FR"), False),
        (Target(), Reader(client_id="a", locale="fr-CA"), True),
        (Target(locales=("zh-Hant",)), Reader(client_id="a", locale="zh-Hant-TW"), True),
        (Target(max_app_version="2.9"), Reader(client_id="a"), False),
        (Target(subscriptions=("trialing", "none")), Reader(client_id="a", subscriptions=frozenset({"none"})), True),
        (
            Target(subscriptions=("active",)),
            Reader(client_id="a", subscriptions=frozenset({"canceled", "active"})),
            True,
        ),
        (Target(subscriptions=("active",)), Reader(client_id="a", subscriptions=frozenset({"canceled"})), False),
        (Target(subscriptions=("none",)), Reader(client_id="a"), False),
    ],
)
def test_an_item_reaches_those_it_is_for(target: Target, reader: Reader, fits: bool) -> None:  # noqa: FBT001
    assert target.fits(reader) is fits


def test_nobody_has_a_version_between_a_last_one_and_a_later_first_one() -> None:
    with pytest.raises(NoSuchAppVersion):
        create(CreateNewsItem(primary=banner(), min_app_version="2.10", max_app_version="2.9"))


def test_an_update_says_all_anew_but_the_start() -> None:
    start = NOW + timedelta(days=1)
    item = create(CreateNewsItem(primary=banner(), priority=5, locales=("de",), starts_at=start))
    later = NOW + timedelta(hours=1)
    updated = item.update(UpdateNewsItem(id=item.id, primary=banner("beak://x")), links=LINKS, at=later)
    assert (updated.starts_at, updated.created_at, updated.updated_at) == (start, NOW, later)
    assert (updated.priority, updated.target, updated.version) == (0, Target(), item.version)
    with pytest.raises(NewsItemEndsBeforeItStarts):
        item.update(UpdateNewsItem(id=item.id, primary=banner(), ends_at=start), links=LINKS, at=later)


def test_a_change_to_a_version_that_is_gone_is_refused() -> None:
    item = create(CreateNewsItem(primary=banner()))
    item.must_be(None)
    item.must_be(1)
    with pytest.raises(NewsItemChanged) as refused:
        item.must_be(2)
    assert refused.value.meta == {"version": 1}


def test_an_item_of_which_some_app_shows_a_way_to_put_it_away_may_be_put_away() -> None:
    stays, goes = banner(dismissible=False), banner()
    create(CreateNewsItem(primary=stays, fallback=goes)).must_be_dismissible()
    with pytest.raises(NewsItemNotDismissible):
        create(CreateNewsItem(primary=stays)).must_be_dismissible()
