import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from services.news.store import DISMISSAL_RETENTION
from shared.messages import ANONYMOUS, Caller
from shared.messages.billing.subscriptions import SubscriptionChanged, SubscriptionEnded, SubscriptionStarted
from shared.messages.news import (
    Action,
    Banner,
    BannerContent,
    CreateNewsItem,
    DismissNewsItem,
    ListAllNewsItems,
    ListNewsItems,
    NewsItemCreated,
    OtherContent,
    RemoveNewsItem,
    UpdateNewsItem,
)
from tests.news.conftest import CLIENT
from tests.service_harness import Refused, ServiceHarness

ANN = Caller(kind="user", user_id="user_ann")
BEA = Caller(kind="user", user_id="user_bea")


def banner(title: str = "A title", action: Action | None = None, *, dismissible: bool = True) -> BannerContent:
    return BannerContent(
        dismissible=dismissible, payload=Banner(emoji="🐦", title=title, body="A body.", action=action)
    )


async def titles(
    harness: ServiceHarness, client_id: str = CLIENT, caller: Caller = ANONYMOUS, **rest: Any
) -> list[str]:
    """Titles of the listed items after a reload of the cache."""
    await harness.context.item_cache.reload()
    items = await harness.deliver(ListNewsItems(client_id=client_id, **rest), caller=caller)
    return [item["primary"]["payload"]["title"] for item in items]


async def create(harness: ServiceHarness, title: str, **rest: Any) -> None:
    await harness.deliver(CreateNewsItem(primary=banner(title), **rest))


async def test_created_item_is_listed(harness: ServiceHarness) -> None:
    action = Action(cta="Look", url="https://getbeak.app/news")
    created = await harness.deliver(CreateNewsItem(primary=banner(action=action), fallback=banner("Plain")))
    assert created["id"].startswith("test_newsitem_")
    payload = {"emoji": "🐦", "title": "A title", "body": "A body.", "action": action.model_dump()}
    await harness.context.item_cache.reload()
    assert await harness.deliver(ListNewsItems(client_id=CLIENT)) == [
        {
            "id": created["id"],
            "primary": {"code": "generic_banner", "dismissible": True, "payload": payload},
            "fallback": {
                "code": "generic_banner",
                "dismissible": True,
                "payload": {**payload, "title": "Plain", "action": None},
            },
        }
    ]
    assert harness.published == [NewsItemCreated(item_id=created["id"])]


async def test_item_document_has_the_stored_field_names(harness: ServiceHarness) -> None:
    created = await harness.deliver(CreateNewsItem(primary=banner(), clients=(CLIENT,)))
    document = await harness.database["news_items"].find_one({})
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    assert document == {
        "_id": created["id"],
        "primary": banner().model_dump(),
        "fallback": None,
        "clients": [CLIENT],
        "locales": None,
        "minAppVersion": None,
        "maxAppVersion": None,
        "subscriptions": None,
        "priority": 0,
        "startsAt": now,
        "endsAt": None,
        "createdAt": now,
        "updatedAt": now,
        "version": 1,
    }


async def test_list_without_items_is_empty(harness: ServiceHarness) -> None:
    assert await harness.deliver(ListNewsItems(client_id=CLIENT)) == []


async def test_unregistered_client_gets_an_empty_list(harness: ServiceHarness) -> None:
    await create(harness, "for all")
    await create(harness, "for it alone", clients=("client_unknown",))
    assert await titles(harness, "client_unknown") == []
    assert await titles(harness, "$where") == []


async def test_items_are_listed_newest_first_for_their_clients_only(harness: ServiceHarness) -> None:
    for title, clients in [("first", None), ("second", (CLIENT, "client_b")), ("third", ("client_b",))]:
        await create(harness, title, clients=clients)
        harness.now += timedelta(minutes=1)
    assert await titles(harness) == ["second", "first"]


async def test_item_is_live_from_its_start_until_its_end(harness: ServiceHarness) -> None:
    start = harness.now + timedelta(hours=1)
    await create(harness, "soon", starts_at=start, ends_at=start + timedelta(hours=1))
    assert await titles(harness) == []
    harness.now = start
    assert await titles(harness) == ["soon"]
    harness.now = start + timedelta(minutes=59)
    assert await titles(harness) == ["soon"]
    harness.now = start + timedelta(hours=1)
    assert await titles(harness) == []


async def test_id_chosen_by_an_operator_is_unique(harness: ServiceHarness) -> None:
    await create(harness, "one", id="newsitem_own")
    with pytest.raises(Refused) as refused:
        await create(harness, "other", id="newsitem_own")
    assert (refused.value.kind, refused.value.code) == ("conflict", "news_item_already_exists")
    assert await titles(harness) == ["one"]


async def test_item_with_a_forbidden_url_is_not_created(harness: ServiceHarness) -> None:
    with pytest.raises(Refused) as refused:
        await harness.deliver(CreateNewsItem(primary=banner(action=Action(cta="x", url="javascript:alert(1)"))))
    assert refused.value.code == "action_url_not_allowed"
    assert harness.published == []
    assert await titles(harness) == []


async def test_second_delivery_creates_no_second_item(harness: ServiceHarness) -> None:
    command = CreateNewsItem(primary=banner())
    first = await harness.deliver(command, id="a" * 32)
    assert await harness.deliver(command, id="a" * 32) == first
    assert await titles(harness) == ["A title"]


async def test_list_is_bounded(harness: ServiceHarness) -> None:
    await asyncio.gather(*(create(harness, str(number)) for number in range(101)))
    assert len(await titles(harness)) == 100


def test_time_without_an_offset_is_invalid() -> None:
    with pytest.raises(ValidationError):
        CreateNewsItem.model_validate_json(
            '{"primary": {"payload": {"emoji": "", "title": "t", "body": "b"}}, "starts_at": "2026-11-21T06:05:00"}'
        )


async def test_items_with_a_higher_priority_are_listed_first(harness: ServiceHarness) -> None:
    for title, priority in [("low", -1), ("old", 0), ("high", 7), ("new", 0)]:
        await create(harness, title, priority=priority)
        harness.now += timedelta(minutes=1)
    assert await titles(harness) == ["high", "new", "old", "low"]


async def test_items_are_selected_by_language_and_app_version(harness: ServiceHarness) -> None:
    await create(harness, "everybody")
    harness.now += timedelta(minutes=1)
    await create(harness, "auf Deutsch", locales=("de",))
    harness.now += timedelta(minutes=1)
    await create(harness, "please update", max_app_version="2.9")
    assert await titles(harness) == ["everybody"]
    assert await titles(harness, locale="de-CH", app_version="2.10") == ["auf Deutsch", "everybody"]
    assert await titles(harness, locale="en", app_version="2.8.1") == ["please update", "everybody"]


@pytest.mark.parametrize(
    ("version", "titles_shown"),
    [
        *((version, ["from 2", "everybody"]) for version in ("v2.0", "2.10.3 (456)", "202406121030", "2.1.2201051644")),
        *((version, ["everybody"]) for version in ("1.9+" + "build." * 5_000, "", "unknown", "9" * 33, "x" * 60_000)),
    ],
)
async def test_no_app_version_is_an_error(harness: ServiceHarness, version: str, titles_shown: list[str]) -> None:
    await create(harness, "everybody")
    harness.now += timedelta(minutes=1)
    await create(harness, "from 2", min_app_version="2")
    assert await titles(harness, app_version=version) == titles_shown


async def test_items_are_selected_by_subscription_state(harness: ServiceHarness) -> None:
    await create(harness, "thank you", subscriptions=("active",))
    harness.now += timedelta(minutes=1)
    await create(harness, "try it", subscriptions=("none", "canceled"))
    ids = {"key": "user_ann", "user_id": "user_ann", "subscription_id": "sub_1"}
    assert await titles(harness) == []
    assert await titles(harness, caller=ANN) == ["try it"]
    await harness.deliver(SubscriptionStarted(**ids, status="trialing"))
    assert await titles(harness, caller=ANN) == []
    await harness.deliver(SubscriptionChanged(**ids, status="active", changed=("status",)))
    assert await titles(harness, caller=ANN) == ["thank you"]
    assert await titles(harness, caller=BEA) == ["try it"]
    ended = SubscriptionEnded(**ids, status="canceled")
    await harness.deliver(ended, id="e" * 32)
    await harness.deliver(ended, id="e" * 32)
    assert await titles(harness, caller=ANN) == ["try it"]


async def test_dismissed_item_is_hidden_from_its_user_only(harness: ServiceHarness) -> None:
    await create(harness, "stays", id="newsitem_1")
    harness.now += timedelta(minutes=1)
    await create(harness, "goes", id="newsitem_2")
    command = DismissNewsItem(key="user_ann", user_id="user_ann", news_item_id="newsitem_2")
    assert await harness.deliver(command, caller=ANN) is None
    assert await titles(harness, caller=ANN) == ["stays"]
    assert await titles(harness, caller=BEA) == ["goes", "stays"]
    assert await titles(harness) == ["goes", "stays"]
    # Repeated from several devices at once.
    await asyncio.gather(*(harness.deliver(command, caller=ANN) for _ in range(5)))
    assert await harness.database["dismissals"].count_documents({}) == 1


async def test_missing_or_permanent_item_cannot_be_dismissed(harness: ServiceHarness) -> None:
    await create(harness, "important", id="newsitem_1")
    await harness.deliver(UpdateNewsItem(id="newsitem_1", primary=banner(dismissible=False)))
    with pytest.raises(Refused) as refused:
        await harness.deliver(DismissNewsItem(user_id="user_ann", news_item_id="newsitem_1"), caller=ANN)
    assert (refused.value.kind, refused.value.code) == ("conflict", "news_item_not_dismissible")
    with pytest.raises(Refused) as refused:
        await harness.deliver(DismissNewsItem(user_id="user_ann", news_item_id="newsitem_2"), caller=ANN)
    assert refused.value.kind == "not_found"


async def test_dismissal_survives_an_extension_of_the_item(harness: ServiceHarness) -> None:
    end = harness.now + timedelta(days=1)
    await create(harness, "sale", id="newsitem_1", ends_at=end)
    await harness.deliver(DismissNewsItem(user_id="user_ann", news_item_id="newsitem_1"), caller=ANN)
    await harness.deliver(UpdateNewsItem(id="newsitem_1", primary=banner("sale"), ends_at=end + timedelta(days=7)))
    harness.now = end + timedelta(days=1)
    assert (await titles(harness), await titles(harness, caller=ANN)) == (["sale"], [])
    expiry = (await harness.database["dismissals"].index_information())["endsAt_1"]["expireAfterSeconds"]
    assert timedelta(seconds=expiry) == DISMISSAL_RETENTION > timedelta(days=90)


async def test_change_is_refused_unless_based_on_the_current_version(harness: ServiceHarness) -> None:
    created = await harness.deliver(CreateNewsItem(primary=banner("one"), priority=3))
    assert (created["version"], created["priority"]) == (1, 3)
    update = UpdateNewsItem(id=created["id"], primary=banner("two"), version=1)
    updated = await harness.deliver(update)
    assert (updated["version"], updated["priority"]) == (2, 0)
    for command in (update, RemoveNewsItem(id=created["id"], version=1)):
        with pytest.raises(Refused) as refused:
            await harness.deliver(command)
        assert (refused.value.code, refused.value.meta) == ("news_item_changed", {"version": 2})
    assert await titles(harness) == ["two"]
    await harness.deliver(RemoveNewsItem(id=created["id"], version=2))
    assert await titles(harness) == []


async def test_change_of_a_missing_item_is_refused(harness: ServiceHarness) -> None:
    for command in (UpdateNewsItem(id="newsitem_0", primary=banner()), RemoveNewsItem(id="newsitem_0")):
        with pytest.raises(Refused) as refused:
            await harness.deliver(command)
        assert refused.value.kind == "not_found"


async def test_second_delivery_of_a_removal_is_not_refused(harness: ServiceHarness) -> None:
    await create(harness, "one", id="newsitem_1")
    for _ in range(2):
        assert await harness.deliver(RemoveNewsItem(id="newsitem_1"), id="f" * 32) is None


async def test_operators_list_items_that_are_not_live(harness: ServiceHarness) -> None:
    await create(harness, "over", ends_at=harness.now + timedelta(seconds=1))
    harness.now += timedelta(minutes=1)
    await create(harness, "to come", clients=("client_b",), starts_at=harness.now + timedelta(days=1), locales=("de",))
    listed = await harness.deliver(ListAllNewsItems())
    assert [item["primary"]["payload"]["title"] for item in listed] == ["to come", "over"]
    assert (listed[0]["clients"], listed[0]["locales"], listed[0]["version"]) == (["client_b"], ["de"], 1)
    assert listed[0]["starts_at"].endswith("Z")
    of_client = await harness.deliver(ListAllNewsItems(client_id=CLIENT))
    assert [item["primary"]["payload"]["title"] for item in of_client] == ["over"]


async def test_operators_page_through_all_items_or_those_of_a_client(harness: ServiceHarness) -> None:
    for number in range(5):
        await create(harness, str(number), id=f"newsitem_{number}", clients=None if number % 2 else ("client_b",))
        harness.now += timedelta(seconds=0 if number == 2 else 1)

    async def all_pages(**filters: Any) -> list[str]:
        seen: list[str] = []
        while True:
            cursor = {"cursor": seen[-1]} if seen else {}
            listed = await harness.deliver(ListAllNewsItems(limit=2, **cursor, **filters))
            seen += [item["id"] for item in listed]
            if len(listed) < 2:
                return seen

    newest_first = [f"newsitem_{number}" for number in (4, 3, 2, 1, 0)]
    assert await all_pages() == newest_first
    assert await all_pages(client_id=CLIENT) == ["newsitem_3", "newsitem_1"]
    assert await all_pages(client_id="client_b") == newest_first
    with pytest.raises(Refused) as refused:
        await harness.deliver(ListAllNewsItems(cursor="newsitem_gone"))
    assert refused.value.kind == "not_found"


async def test_content_of_another_kind_is_returned_unchanged(harness: ServiceHarness) -> None:
    tour = OtherContent(code="tour", dismissible=False, payload={"steps": [1, {"text": "ä"}], "url": "beak://tour"})
    await harness.deliver(CreateNewsItem(primary=tour, fallback=banner("Plain")))
    await harness.context.item_cache.reload()
    (item,) = await harness.deliver(ListNewsItems(client_id=CLIENT))
    assert item["primary"] == tour.model_dump()
    assert item["fallback"]["code"] == "generic_banner"


async def test_validation_error_names_the_field_of_the_banner(harness: ServiceHarness) -> None:
    with pytest.raises(ValidationError) as invalid:
        CreateNewsItem.model_validate({"primary": {"code": "generic_banner", "payload": {"emoji": "", "title": "t"}}})
    assert [error["loc"] for error in invalid.value.errors()] == [("primary", "banner", "payload", "body")]
    assert harness.published == []


async def test_items_stored_before_there_were_targets_are_listed(harness: ServiceHarness) -> None:
    await create(harness, "old")
    added_later = ("locales", "minAppVersion", "maxAppVersion", "subscriptions", "priority")
    await harness.database["news_items"].update_one({}, {"$unset": dict.fromkeys(added_later, "")})
    assert await titles(harness) == ["old"]
