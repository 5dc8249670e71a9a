import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from services.news.app import opened
from services.news.handlers import HANDLERS
from services.news.settings import NewsSettings
from services.news.store import INDEXES, PUT_AWAY_FOR
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
    NewsItemRemoved,
    NewsItemUpdated,
    OtherContent,
    RemoveNewsItem,
    UpdateNewsItem,
)
from tests.news.conftest import CLIENT, announced
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
    """What is listed once the board has been read anew."""
    await harness.context.board.read()
    items = await harness.deliver(ListNewsItems(client_id=client_id, **rest), caller=caller)
    return [item["primary"]["payload"]["title"] for item in items]


async def create(harness: ServiceHarness, title: str, **rest: Any) -> None:
    await harness.deliver(CreateNewsItem(primary=banner(title), **rest))


async def test_a_created_item_is_listed_as_apps_read_it(harness: ServiceHarness) -> None:
    action = Action(cta="Look", url="https://getbeak.app/news")
    created = await harness.deliver(CreateNewsItem(primary=banner(action=action), fallback=banner("Plain")))
    assert created["id"].startswith("test_newsitem_")
    payload = {"emoji": "🐦", "title": "A title", "body": "A body.", "action": action.model_dump()}
    await harness.context.board.read()
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


async def test_an_item_is_kept_as_the_page_on_data_at_rest_says(harness: ServiceHarness) -> None:
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


async def test_nothing_published_is_an_empty_list(harness: ServiceHarness) -> None:
    assert await harness.deliver(ListNewsItems(client_id=CLIENT)) == []


async def test_an_unknown_client_gets_an_empty_list(harness: ServiceHarness) -> None:
    await create(harness, "for all")
    await create(harness, "for it alone", clients=("client_unknown",))
    assert await titles(harness, "client_unknown") == []
    assert await titles(harness, "$where") == []


async def test_a_client_announced_later_sees_what_is_live(harness: ServiceHarness) -> None:
    await create(harness, "for all")
    assert await titles(harness, "client_new") == []
    harness.publish_to_followers(announced("client_new"))
    assert await titles(harness, "client_new") == ["for all"]


async def test_items_come_newest_first_and_only_to_their_targets(harness: ServiceHarness) -> None:
    for title, clients in [("first", None), ("second", (CLIENT, "client_b")), ("third", ("client_b",))]:
        await create(harness, title, clients=clients)
        harness.now += timedelta(minutes=1)
    assert await titles(harness) == ["second", "first"]


async def test_an_item_is_live_from_its_start_until_its_end(harness: ServiceHarness) -> None:
    start = harness.now + timedelta(hours=1)
    await create(harness, "soon", starts_at=start, ends_at=start + timedelta(hours=1))
    assert await titles(harness) == []
    harness.now = start
    assert await titles(harness) == ["soon"]
    harness.now = start + timedelta(minutes=59)
    assert await titles(harness) == ["soon"]
    harness.now = start + timedelta(hours=1)
    assert await titles(harness) == []


async def test_an_operators_own_id_is_used_once(harness: ServiceHarness) -> None:
    await create(harness, "one", id="newsitem_own")
    with pytest.raises(Refused) as refused:
        await create(harness, "other", id="newsitem_own")
    assert (refused.value.kind, refused.value.code) == ("conflict", "news_item_already_exists")
    assert await titles(harness) == ["one"]


async def test_a_forbidden_button_publishes_nothing(harness: ServiceHarness) -> None:
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


async def test_the_list_is_bounded(harness: ServiceHarness) -> None:
    for number in range(101):
        await create(harness, str(number))
    assert len(await titles(harness)) == 100


def test_a_moment_without_an_offset_is_not_taken() -> None:
    with pytest.raises(ValidationError):
        CreateNewsItem.model_validate_json(
            '{"primary": {"payload": {"emoji": "", "title": "t", "body": "b"}}, "starts_at": "2026-11-21T06:05:00"}'
        )


async def test_a_change_is_heard_and_shown_by_itself(harness: ServiceHarness) -> None:
    async def shown() -> list[str]:
        items = await harness.deliver(ListNewsItems(client_id=CLIENT))
        return [item["primary"]["payload"]["title"] for item in items]

    async def becomes(expected: list[str]) -> None:
        async with asyncio.timeout(10):
            while await shown() != expected:  # noqa: ASYNC110 -- the board's state
                await asyncio.sleep(0.01)

    await create(harness, "one", id="newsitem_1")
    await becomes(["one"])
    await harness.deliver(UpdateNewsItem(id="newsitem_1", primary=banner("two")))
    await becomes(["two"])
    await harness.deliver(RemoveNewsItem(id="newsitem_1"))
    await becomes([])
    assert harness.published == [
        NewsItemCreated(item_id="newsitem_1"),
        NewsItemUpdated(item_id="newsitem_1"),
        NewsItemRemoved(item_id="newsitem_1"),
    ]


async def test_what_matters_more_comes_first(harness: ServiceHarness) -> None:
    for title, priority in [("low", -1), ("old", 0), ("high", 7), ("new", 0)]:
        await create(harness, title, priority=priority)
        harness.now += timedelta(minutes=1)
    assert await titles(harness) == ["high", "new", "old", "low"]


async def test_language_and_version_of_the_app_decide(harness: ServiceHarness) -> None:
    await create(harness, "everybody")
    harness.now += timedelta(minutes=1)
    await create(harness, "auf Deutsch", locales=("de",))
    harness.now += timedelta(minutes=1)
    await create(harness, "please update", max_app_version="2.9")
    assert await titles(harness) == ["everybody"]
    assert await titles(harness, locale="de-CH", app_version="2.10") == ["auf Deutsch", "everybody"]
    assert await titles(harness, locale="en", app_version="2.8.1") == ["please update", "everybody"]


async def test_an_item_for_subscribers_is_shown_to_those_who_are_signed_in_and_subscribe(
    harness: ServiceHarness,
) -> None:
    await create(harness, "thank you", subscriptions=("active",))
    harness.now += timedelta(minutes=1)
    await create(harness, "try it", subscriptions=("none", "canceled"))
    facts = {"key": "user_ann", "user_id": "user_ann", "subscription_id": "sub_1"}
    assert await titles(harness) == []
    assert await titles(harness, caller=ANN) == ["try it"]
    await harness.deliver(SubscriptionStarted(**facts, status="trialing"))
    assert await titles(harness, caller=ANN) == []
    await harness.deliver(SubscriptionChanged(**facts, status="active", changed=("status",)))
    assert await titles(harness, caller=ANN) == ["thank you"]
    assert await titles(harness, caller=BEA) == ["try it"]
    ended = SubscriptionEnded(**facts, status="canceled")
    await harness.deliver(ended, id="e" * 32)
    await harness.deliver(ended, id="e" * 32)
    assert await titles(harness, caller=ANN) == ["try it"]


async def test_what_a_user_put_away_is_gone_on_every_device_and_for_nobody_else(harness: ServiceHarness) -> None:
    await create(harness, "stays", id="newsitem_1")
    harness.now += timedelta(minutes=1)
    await create(harness, "goes", id="newsitem_2")
    order = DismissNewsItem(key="user_ann", user_id="user_ann", news_item_id="newsitem_2")
    assert await harness.deliver(order, caller=ANN) is None
    assert await titles(harness, caller=ANN) == ["stays"]
    assert await titles(harness, caller=BEA) == ["goes", "stays"]
    assert await titles(harness) == ["goes", "stays"]
    # From several devices at once, and again.
    await asyncio.gather(*(harness.deliver(order, caller=ANN) for _ in range(5)))
    assert await harness.database["dismissals"].count_documents({}) == 1


async def test_only_what_is_there_and_may_go_is_put_away(harness: ServiceHarness) -> None:
    await create(harness, "important", id="newsitem_1")
    await harness.deliver(UpdateNewsItem(id="newsitem_1", primary=banner(dismissible=False)))
    with pytest.raises(Refused) as refused:
        await harness.deliver(DismissNewsItem(user_id="user_ann", news_item_id="newsitem_1"), caller=ANN)
    assert (refused.value.kind, refused.value.code) == ("conflict", "news_item_not_dismissible")
    with pytest.raises(Refused) as refused:
        await harness.deliver(DismissNewsItem(user_id="user_ann", news_item_id="newsitem_2"), caller=ANN)
    assert refused.value.kind == "not_found"


async def test_an_update_is_for_the_version_that_was_read(harness: ServiceHarness) -> None:
    created = await harness.deliver(CreateNewsItem(primary=banner("one"), priority=3))
    assert (created["version"], created["priority"]) == (1, 3)
    update = UpdateNewsItem(id=created["id"], primary=banner("two"), version=1)
    updated = await harness.deliver(update)
    assert (updated["version"], updated["priority"]) == (2, 0)
    for order in (update, RemoveNewsItem(id=created["id"], version=1)):
        with pytest.raises(Refused) as refused:
            await harness.deliver(order)
        assert (refused.value.code, refused.value.meta) == ("news_item_changed", {"version": 2})
    assert await titles(harness) == ["two"]
    await harness.deliver(RemoveNewsItem(id=created["id"], version=2))
    assert await titles(harness) == []


async def test_nothing_is_changed_that_is_not_there(harness: ServiceHarness) -> None:
    for order in (UpdateNewsItem(id="newsitem_0", primary=banner()), RemoveNewsItem(id="newsitem_0")):
        with pytest.raises(Refused) as refused:
            await harness.deliver(order)
        assert refused.value.kind == "not_found"


async def test_a_second_delivery_of_a_removal_is_no_refusal(harness: ServiceHarness) -> None:
    await create(harness, "one", id="newsitem_1")
    for _ in range(2):
        assert await harness.deliver(RemoveNewsItem(id="newsitem_1"), id="f" * 32) is None


async def test_operators_see_all_items_whenever_they_are_live(harness: ServiceHarness) -> None:
    await create(harness, "over", ends_at=harness.now + timedelta(seconds=1))
    harness.now += timedelta(minutes=1)
    await create(harness, "to come", clients=("client_b",), starts_at=harness.now + timedelta(days=1), locales=("de",))
    listed = await harness.deliver(ListAllNewsItems())
    assert [item["primary"]["payload"]["title"] for item in listed] == ["to come", "over"]
    assert (listed[0]["clients"], listed[0]["locales"], listed[0]["version"]) == (["client_b"], ["de"], 1)
    assert listed[0]["starts_at"].endswith("Z")
    only = await harness.deliver(ListAllNewsItems(client_id=CLIENT))
    assert [item["primary"]["payload"]["title"] for item in only] == ["over"]


async def test_content_of_another_kind_travels_as_it_is(harness: ServiceHarness) -> None:
    tour = OtherContent(code="tour", dismissible=False, payload={"steps": [1, {"text": "ä"}], "url": "beak://tour"})
    await harness.deliver(CreateNewsItem(primary=tour, fallback=banner("Plain")))
    await harness.context.board.read()
    (item,) = await harness.deliver(ListNewsItems(client_id=CLIENT))
    assert item["primary"] == tour.model_dump()
    assert item["fallback"]["code"] == "generic_banner"


async def test_a_wrong_banner_is_named_by_its_field(harness: ServiceHarness) -> None:
    with pytest.raises(ValidationError) as wrong:
        CreateNewsItem.model_validate({"primary": {"code": "generic_banner", "payload": {"emoji": "", "title": "t"}}})
    assert [error["loc"] for error in wrong.value.errors()] == [("primary", "banner", "payload", "body")]
    assert harness.published == []


async def test_items_from_before_there_were_other_targets_are_still_shown(harness: ServiceHarness) -> None:
    await create(harness, "old")
    later = ("locales", "minAppVersion", "maxAppVersion", "subscriptions", "priority")
    await harness.database["news_items"].update_one({}, {"$unset": dict.fromkeys(later, "")})
    assert await titles(harness) == ["old"]


async def test_pages_of_all_items_follow_one_another_and_those_of_a_client_are_its_own(harness: ServiceHarness) -> None:
    for number in range(5):
        await create(harness, str(number), id=f"newsitem_{number}", clients=None if number % 2 else ("client_b",))
        harness.now += timedelta(seconds=0 if number == 2 else 1)

    async def paged(**wanted: Any) -> list[str]:
        seen: list[str] = []
        while True:
            last = {"cursor": seen[-1]} if seen else {}
            listed = await harness.deliver(ListAllNewsItems(limit=2, **last, **wanted))
            seen += [item["id"] for item in listed]
            if len(listed) < 2:
                return seen

    everything = [f"newsitem_{number}" for number in (4, 3, 2, 1, 0)]
    assert await paged() == everything
    assert await paged(client_id=CLIENT) == ["newsitem_3", "newsitem_1"]
    assert await paged(client_id="client_b") == everything
    with pytest.raises(Refused) as refused:
        await harness.deliver(ListAllNewsItems(cursor="newsitem_gone"))
    assert refused.value.kind == "not_found"


async def test_only_what_changed_is_read_again_and_what_is_made_anew_under_its_id_has(harness: ServiceHarness) -> None:
    for number in range(3):
        await create(harness, str(number), id=f"newsitem_{number}")
    board = harness.context.board
    await board.read()
    before = dict(board._known)
    harness.now += timedelta(seconds=1)
    await harness.deliver(UpdateNewsItem(id="newsitem_1", primary=banner("changed")))
    await harness.deliver(RemoveNewsItem(id="newsitem_2"))
    await create(harness, "another", id="newsitem_2")
    await board.read()
    assert board._known["newsitem_0"] is before["newsitem_0"]
    assert {item.primary.payload.title for item in board._known.values()} == {"0", "changed", "another"}
    await harness.deliver(RemoveNewsItem(id="newsitem_0"))
    await board.read()
    assert set(board._known) == {"newsitem_1", "newsitem_2"}


async def test_a_change_at_one_instance_shows_at_another(
    harness: ServiceHarness, mongo_url: str, settings: Callable[..., NewsSettings]
) -> None:
    other = ServiceHarness(
        mongo_url,
        harness.database.name,
        service="news",
        handlers=HANDLERS,
        indexes=INDEXES,
        open_context=partial(opened, settings=settings()),
    )
    async with other:
        other.publish_to_followers(announced(CLIENT))

        async def shown() -> list[str]:
            items = await other.deliver(ListNewsItems(client_id=CLIENT))
            return [item["primary"]["payload"]["title"] for item in items]

        async def becomes(expected: list[str]) -> None:
            # As Kafka brings it.
            other.publish_to_followers(harness.published[-1])
            async with asyncio.timeout(10):
                while await shown() != expected:  # noqa: ASYNC110 -- the board's state
                    await asyncio.sleep(0.01)

        await create(harness, "one", id="newsitem_1")
        await becomes(["one"])
        await harness.deliver(UpdateNewsItem(id="newsitem_1", primary=banner("two")))
        await becomes(["two"])
        await harness.deliver(RemoveNewsItem(id="newsitem_1"))
        await becomes([])


async def test_a_stranger_is_answered_from_memory_while_mongodb_is_away(harness: ServiceHarness) -> None:
    await create(harness, "one")
    assert await titles(harness) == ["one"]
    await harness._client.close()
    (item,) = await harness.deliver(ListNewsItems(client_id=CLIENT, locale="de", app_version="1.0"))
    assert item["primary"]["payload"]["title"] == "one"


async def test_what_was_put_away_stays_away_when_the_items_end_is_put_off(harness: ServiceHarness) -> None:
    end = harness.now + timedelta(days=1)
    await create(harness, "sale", id="newsitem_1", ends_at=end)
    await harness.deliver(DismissNewsItem(user_id="user_ann", news_item_id="newsitem_1"), caller=ANN)
    await harness.deliver(UpdateNewsItem(id="newsitem_1", primary=banner("sale"), ends_at=end + timedelta(days=7)))
    harness.now = end + timedelta(days=1)
    assert (await titles(harness), await titles(harness, caller=ANN)) == (["sale"], [])
    expiry = (await harness.database["dismissals"].index_information())["endsAt_1"]["expireAfterSeconds"]
    assert timedelta(seconds=expiry) == PUT_AWAY_FOR > timedelta(days=90)
