from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.news.models import AllowedUrls, NewsItem, Reader, Target, version_key
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
    app_version,
)

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
ALLOWED_URLS = AllowedUrls(frozenset({"https", "http", "beak"}))


def banner(url: str | None = None, *, dismissible: bool = True) -> BannerContent:
    action = None if url is None else Action(cta="Look", url=url)
    payload = Banner(emoji="🐦", title="A title", body="A body.", action=action)
    return BannerContent(dismissible=dismissible, payload=payload)


def create(command: CreateNewsItem, allowed_urls: AllowedUrls = ALLOWED_URLS) -> NewsItem:
    return NewsItem.create(command, id="newsitem_1", allowed_urls=allowed_urls, at=NOW)


def test_item_starts_now_and_never_ends_by_default() -> None:
    item = create(CreateNewsItem(primary=banner()))
    assert (item.starts_at, item.ends_at, item.target) == (NOW, None, Target())


@pytest.mark.parametrize("length", [timedelta(0), timedelta(seconds=-1)])
def test_item_that_ends_before_it_starts_is_refused(length: timedelta) -> None:
    start = NOW + timedelta(days=1)
    with pytest.raises(NewsItemEndsBeforeItStarts):
        create(CreateNewsItem(primary=banner(), starts_at=start, ends_at=start + length))


def test_item_without_a_start_cannot_end_in_the_past() -> None:
    with pytest.raises(NewsItemEndsBeforeItStarts):
        create(CreateNewsItem(primary=banner(), ends_at=NOW - timedelta(minutes=1)))


@pytest.mark.parametrize(
    "url", ["https://getbeak.app/news?a=1#b", "http://127.0.0.1:8080/", "beak://settings/theme", "HTTPS://getbeak.app"]
)
def test_button_may_open_web_pages_and_our_apps(url: str) -> None:
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
def test_button_may_open_nothing_else(url: str) -> None:
    # Constructed without validation, since the message itself rejects an empty URL.
    action = {"action": Action.model_construct(cta="Look", url=url)}
    with pytest.raises(ActionUrlNotAllowed) as refused:
        ALLOWED_URLS.check(banner().model_copy(update={"payload": banner("x").payload.model_copy(update=action)}))
    assert refused.value.meta == {"schemes": ["beak", "http", "https"], "hosts": []}


def test_url_of_the_fallback_is_checked_too() -> None:
    with pytest.raises(ActionUrlNotAllowed):
        create(CreateNewsItem(primary=banner(), fallback=banner("javascript:alert(1)")))


@pytest.mark.parametrize("url", ["https://nest.example/a", "http://news.nest.example:8080/", "beak://settings"])
def test_allowed_hosts_include_their_subdomains(url: str) -> None:
    create(CreateNewsItem(primary=banner(url)), AllowedUrls(ALLOWED_URLS.schemes, frozenset({"nest.example"})))


@pytest.mark.parametrize("url", ["https://evilnest.example/", "https://nest.example.evil/", "https://example/"])
def test_host_that_resembles_an_allowed_one_is_refused(url: str) -> None:
    with pytest.raises(ActionUrlNotAllowed) as refused:
        create(CreateNewsItem(primary=banner(url)), AllowedUrls(ALLOWED_URLS.schemes, frozenset({"nest.example"})))
    assert refused.value.meta["hosts"] == ["nest.example"]


def test_primary_of_another_kind_requires_a_banner_as_fallback() -> None:
    video = OtherContent(code="video", payload={"url": "https://nest.example/v"})
    with pytest.raises(FallbackMissing):
        create(CreateNewsItem(primary=video))
    with pytest.raises(FallbackMissing):
        create(CreateNewsItem(primary=video, fallback=video))
    assert create(CreateNewsItem(primary=video, fallback=banner())).primary == video


def test_every_url_in_content_of_another_kind_is_checked() -> None:
    for payload in ({"url": "javascript:alert(1)"}, {"steps": [{"button": {"url": "file:///x"}}]}, {"url": 1}):
        with pytest.raises(ActionUrlNotAllowed):
            create(CreateNewsItem(primary=OtherContent(code="tour", payload=payload), fallback=banner()))


@pytest.mark.parametrize(
    ("target", "reader", "included"),
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
def test_target_includes_its_readers_only(target: Target, reader: Reader, included: bool) -> None:  # noqa: FBT001
    assert target.includes(reader) is included


def test_highest_app_version_below_the_lowest_is_refused() -> None:
    with pytest.raises(NoSuchAppVersion):
        create(CreateNewsItem(primary=banner(), min_app_version="2.10", max_app_version="2.9"))


def test_update_replaces_everything_but_the_start() -> None:
    start = NOW + timedelta(days=1)
    item = create(CreateNewsItem(primary=banner(), priority=5, locales=("de",), starts_at=start))
    later = NOW + timedelta(hours=1)
    command = UpdateNewsItem(id=item.id, primary=banner("beak://x"))
    updated = item.update(command, allowed_urls=ALLOWED_URLS, at=later)
    assert (updated.starts_at, updated.created_at, updated.updated_at) == (start, NOW, later)
    assert (updated.priority, updated.target, updated.version) == (0, Target(), item.version)
    with pytest.raises(NewsItemEndsBeforeItStarts):
        item.update(UpdateNewsItem(id=item.id, primary=banner(), ends_at=start), allowed_urls=ALLOWED_URLS, at=later)


def test_change_based_on_an_old_version_is_refused() -> None:
    item = create(CreateNewsItem(primary=banner()))
    item.check_version(None)
    item.check_version(1)
    with pytest.raises(NewsItemChanged) as refused:
        item.check_version(2)
    assert refused.value.meta == {"version": 1}


def test_item_is_dismissible_if_one_of_its_contents_is() -> None:
    permanent, dismissible = banner(dismissible=False), banner()
    create(CreateNewsItem(primary=permanent, fallback=dismissible)).check_dismissible()
    with pytest.raises(NewsItemNotDismissible):
        create(CreateNewsItem(primary=permanent)).check_dismissible()


SORTED_VERSIONS = (
    "0",
    "0.9",
    "1.0.0-0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1",
    "1.0.1",
    "1.2",
    "1.9",
    "1.10",
    "2.0.0.1-x",
    "2.0.0.1",
    "2.0.0.1.1",
    "3.0.999999999",
    "3.0.2201051644",
    "3.0.2201051645",
    "3.0.10000000000",
    "202406121029",
    "202406121030",
)
"""Includes the example of https://semver.org, section 11."""


def test_app_versions_sort_as_in_semantic_versioning() -> None:
    assert sorted(SORTED_VERSIONS, key=version_key) == list(SORTED_VERSIONS)
    assert len({version_key(version) for version in SORTED_VERSIONS}) == len(SORTED_VERSIONS)


@pytest.mark.parametrize("other", ["2.10.0", "2.10.0.0", "2.10+build.7", "2.10.0+x-y"])
def test_trailing_zeros_and_build_names_are_ignored(other: str) -> None:
    assert version_key(other) == version_key("2.10")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.2.3", "1.2.3"),
        ("v1.2.3", "1.2.3"),
        ("V 1.2", "1.2"),
        ("Version 1.2", "1.2"),
        (" 1.2.3\n", "1.2.3"),
        ("1.2.3 (456)", "1.2.3"),
        ("1.2.3(456)", "1.2.3"),
        ("1.2.3 build 456", "1.2.3"),
        ("1.2.3-beta.2 (456)", "1.2.3-beta.2"),
        ("1.2.3-rc.1+sha.5114f85", "1.2.3-rc.1"),
        ("1.2.3+" + "x" * 50_000, "1.2.3"),
        ("1.2.3.4.5", "1.2.3.4.5"),
        ("1.1.2201051644", "1.1.2201051644"),
        ("202406121030", "202406121030"),
        ("18446744073709551615", "18446744073709551615"),
        *(
            (text, None)
            for text in ("", " ", "unknown", "null", "dev", "1.", ".1", "1..2", "1.x", "1,2", "-1", "1-", "(456)", "v")
        ),
        *((text, None) for text in ("9" * 33, "1" + ".1" * 10, "1-" + "x" * 101, "\u0661.\u0662", "1" * 60_000)),
    ],
)
def test_app_versions_are_read_in_every_common_form(text: str, version: str | None) -> None:
    assert app_version(text) == version


@given(st.text(max_size=40) | st.lists(st.sampled_from([*"v109.-+ (b)x"]), max_size=40).map("".join))
def test_a_readable_app_version_is_one_that_operators_may_set(text: str) -> None:
    version = app_version(text)
    if version is not None:
        assert app_version(version) == version
        CreateNewsItem(primary=banner(), min_app_version=version)
        version_key(version)


@pytest.mark.parametrize(
    "payload", [{"number": 2**63}, {"numbers": [{"number": -(2**63) - 1}]}, {"a\0b": 1}, {"names": [{"\0": 1}]}]
)
def test_payload_that_cannot_be_stored_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CreateNewsItem(primary=OtherContent(code="other", payload=payload), fallback=banner())
    storable = {"a.b": [2**63 - 1, -(2**63), 1e300, True, None], "$c": {"": "x"}}
    CreateNewsItem(primary=OtherContent(code="other", payload=storable), fallback=banner())


@pytest.mark.parametrize("bound", ["", "unknown", "v1.2", "1.2 (3)", "1.x", "9" * 33])
def test_unreadable_bounds_of_an_item_are_refused(bound: str) -> None:
    with pytest.raises(ValidationError):
        CreateNewsItem(primary=banner(), min_app_version=bound)


@given(st.lists(st.from_regex(r"\A[0-9]{1,32}(\.[0-9]{1,32}){0,9}([-+][0-9A-Za-z.+-]{1,100})?\Z"), max_size=5))
def test_every_valid_app_version_has_a_sort_key(versions: list[str]) -> None:
    keys = sorted(map(version_key, versions))
    assert all(before <= after for before, after in pairwise(keys))
