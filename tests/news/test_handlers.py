import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from shared.messages.auth import ClientCreated
from shared.messages.news import Action, Banner, Content, CreateNewsItem, ListNewsItems, NewsItemCreated
from tests.desk import Desk, Refused
from tests.news.conftest import CLIENT


def banner(title: str = "A title", action: Action | None = None) -> Content:
    return Content(payload=Banner(emoji="🐦", title=title, body="A body.", action=action))


async def titles(desk: Desk, client_id: str = CLIENT) -> list[str]:
    items = await desk.perform(ListNewsItems(client_id=client_id))
    return [item["primary"]["payload"]["title"] for item in items]


async def create(desk: Desk, title: str, **rest: Any) -> None:
    await desk.perform(CreateNewsItem(primary=banner(title), **rest))


async def test_a_created_item_is_listed_as_apps_read_it(desk: Desk) -> None:
    action = Action(cta="Look", url="https://getbeak.app/news")
    created = await desk.perform(CreateNewsItem(primary=banner(action=action), fallback=banner("Plain")))
    assert created["id"].startswith("test_newsitem_")
    payload = {"emoji": "🐦", "title": "A title", "body": "A body.", "action": action.model_dump()}
    assert await desk.perform(ListNewsItems(client_id=CLIENT)) == [
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
    assert desk.published == [NewsItemCreated(item_id=created["id"])]


async def test_an_item_is_kept_as_the_page_on_data_at_rest_says(desk: Desk) -> None:
    created = await desk.perform(CreateNewsItem(primary=banner(), clients=(CLIENT,)))
    document = await desk.database["news_items"].find_one({})
    now = desk.now.replace(microsecond=desk.now.microsecond // 1000 * 1000)
    assert document == {
        "_id": created["id"],
        "primary": banner().model_dump(),
        "fallback": None,
        "clients": [CLIENT],
        "startsAt": now,
        "endsAt": None,
        "createdAt": now,
        "updatedAt": now,
        "version": 1,
    }


async def test_nothing_published_is_an_empty_list(desk: Desk) -> None:
    assert await desk.perform(ListNewsItems(client_id=CLIENT)) == []


async def test_an_unknown_client_gets_an_empty_list(desk: Desk) -> None:
    await create(desk, "for all")
    await create(desk, "for it alone", clients=("client_unknown",))
    assert await titles(desk, "client_unknown") == []
    assert await titles(desk, "$where") == []


async def test_a_client_announced_later_sees_what_is_live(desk: Desk) -> None:
    await create(desk, "for all")
    assert await titles(desk, "client_new") == []
    await desk.perform(ClientCreated(key="client_new", client_id="client_new"))
    assert await titles(desk, "client_new") == ["for all"]


async def test_a_client_announced_many_times_is_kept_once(desk: Desk) -> None:
    event = ClientCreated(key="client_new", client_id="client_new")
    await asyncio.gather(*(desk.perform(event) for _ in range(5)))
    assert await desk.database["clients"].count_documents({"_id": "client_new"}) == 1


async def test_items_come_newest_first_and_only_to_their_targets(desk: Desk) -> None:
    for title, clients in [("first", None), ("second", (CLIENT, "client_b")), ("third", ("client_b",))]:
        await create(desk, title, clients=clients)
        desk.now += timedelta(minutes=1)
    assert await titles(desk) == ["second", "first"]


async def test_an_item_is_live_from_its_start_until_its_end(desk: Desk) -> None:
    start = desk.now + timedelta(hours=1)
    await create(desk, "soon", starts_at=start, ends_at=start + timedelta(hours=1))
    assert await titles(desk) == []
    desk.now = start
    assert await titles(desk) == ["soon"]
    desk.now = start + timedelta(minutes=59)
    assert await titles(desk) == ["soon"]
    desk.now = start + timedelta(hours=1)
    assert await titles(desk) == []


async def test_an_operators_own_id_is_used_once(desk: Desk) -> None:
    await create(desk, "one", id="newsitem_own")
    with pytest.raises(Refused) as refused:
        await create(desk, "other", id="newsitem_own")
    assert (refused.value.kind, refused.value.code) == ("conflict", "news_item_already_exists")
    assert await titles(desk) == ["one"]


async def test_a_forbidden_button_publishes_nothing(desk: Desk) -> None:
    with pytest.raises(Refused) as refused:
        await desk.perform(CreateNewsItem(primary=banner(action=Action(cta="x", url="javascript:alert(1)"))))
    assert refused.value.code == "action_url_not_allowed"
    assert desk.published == []
    assert await titles(desk) == []


async def test_second_delivery_creates_no_second_item(desk: Desk) -> None:
    command = CreateNewsItem(primary=banner())
    first = await desk.perform(command, id="a" * 32)
    assert await desk.perform(command, id="a" * 32) == first
    assert await titles(desk) == ["A title"]


async def test_the_list_is_bounded(desk: Desk) -> None:
    for number in range(101):
        await create(desk, str(number))
    assert len(await titles(desk)) == 100


def test_a_moment_without_an_offset_is_not_taken() -> None:
    with pytest.raises(ValidationError):
        CreateNewsItem.model_validate_json(
            '{"primary": {"payload": {"emoji": "", "title": "t", "body": "b"}}, "starts_at": "2026-11-21T06:05:00"}'
        )


async def test_listing_reads_by_the_index(desk: Desk) -> None:
    explained = await desk.database.command(
        "explain",
        {"find": "news_items", "filter": {"startsAt": {"$lte": desk.now}}, "sort": {"startsAt": -1, "_id": -1}},
    )
    assert "IXSCAN" in str(explained["queryPlanner"]["winningPlan"])
