import asyncio
from typing import Any

import pytest

from shared.ids import new_message_id
from shared.messages import iso_milliseconds
from shared.messages.auth import AnnounceClient, ClientAnnounced, ClientCreated, CreateClient
from tests.auth.flows import CLIENT, REDIRECT_URI, refusal, send_magic_link
from tests.desk import Desk, Refused


async def test_a_client_is_shown_as_it_was_registered(desk: Desk) -> None:
    uris = ("https://app.example/a", "beak://callback", "http://127.0.0.1:8080/dev/callback")
    client = await desk.perform(CreateClient(name="Beak", redirect_uris=uris))
    assert client == {
        "id": client["id"],
        "name": "Beak",
        "redirect_uris": list(uris),
        "disabled": False,
        "created_at": iso_milliseconds(desk.now),
        "updated_at": iso_milliseconds(desk.now),
    }
    assert client["id"].startswith("test_client_")
    assert desk.published == [
        ClientCreated(client_id=client["id"]),
        ClientAnnounced(client_id=client["id"], name="Beak", disabled=False),
    ]
    await desk.perform(send_magic_link(client_id=client["id"], redirect_uri="beak://callback"))


async def test_an_id_of_the_operators_choice_is_taken_as_it_is(desk: Desk) -> None:
    client = await desk.perform(CreateClient(id="mine", name="Beak", redirect_uris=(REDIRECT_URI,)))
    assert client["id"] == "mine"


async def test_an_id_in_use_is_refused(desk: Desk) -> None:
    order = CreateClient(id=CLIENT, name="Another", redirect_uris=("https://evil.example/",))
    assert await refusal(desk, order) == ("conflict", "client_already_exists")
    assert (await desk.database["clients"].find_one({"_id": CLIENT}))["name"] == "An app"
    assert desk.published == []


async def test_of_parallel_registrations_under_one_id_one_succeeds(desk: Desk) -> None:
    order = CreateClient(id="mine", name="Beak", redirect_uris=(REDIRECT_URI,))
    answers: list[Any] = await asyncio.gather(*(desk.perform(order) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    assert sum(isinstance(answer, Refused) and answer.code == "client_already_exists" for answer in answers) == 9


async def test_a_second_delivery_shows_the_same_client(desk: Desk) -> None:
    order, message_id = CreateClient(name="Beak", redirect_uris=(REDIRECT_URI,)), new_message_id()
    answers = [await desk.perform(order, id=message_id) for _ in range(2)]
    assert answers[0] == answers[1]
    assert [type(message) for message in desk.published] == [ClientCreated, ClientAnnounced]


@pytest.mark.parametrize("uri", ["", "/callback", "javascript:alert(1)", "https://app.example/#x", "https:///x"])
async def test_a_uri_that_no_app_may_have_is_refused(desk: Desk, uri: str) -> None:
    order = CreateClient(name="Beak", redirect_uris=(REDIRECT_URI, uri))
    assert await refusal(desk, order) == ("invalid", "invalid_redirect_uri")


async def test_a_client_is_announced_as_it_is_now(desk: Desk) -> None:
    await desk.perform(AnnounceClient(client_id=CLIENT))
    assert desk.published == [ClientAnnounced(client_id=CLIENT, name="An app", disabled=False)]
