import asyncio
from datetime import timedelta
from typing import Any

import pytest

from shared.ids import new_message_id
from shared.messages import iso_milliseconds
from shared.messages.auth.clients import (
    AnnounceClient,
    ClientAnnounced,
    ClientCreated,
    CreateClient,
    ListClients,
    SetClientLooks,
    UpdateClient,
)
from shared.messages.auth.users import EnsureUser, FindConsentAddress, UserEnsured
from shared.messages.mailer.branding import ClientLooks, RecordClientLooks
from shared.messages.mailer.consents import CarryMarketingConsent
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import ADDRESS, CLIENT, OTHER_CLIENT, REDIRECT_URI, logged_in, refresh, refusal, send_magic_link
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
        "version": 1,
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


async def test_what_is_changed_of_a_client_is_announced_and_the_rest_stays(desk: Desk) -> None:
    before = (await desk.perform(ListClients()))[0]
    desk.now += timedelta(minutes=1)
    after = await desk.perform(UpdateClient(id=CLIENT, name="Better"))
    assert after == {**before, "name": "Better", "updated_at": iso_milliseconds(desk.now), "version": 2}
    assert after in await desk.perform(ListClients())
    assert desk.published == [ClientAnnounced(client_id=CLIENT, name="Better", disabled=False)]
    assert [(entry.action, entry.client_id) for entry in desk.audited] == [("update_client", CLIENT)]


async def test_a_disabled_client_logs_nobody_in_until_it_is_enabled(desk: Desk) -> None:
    tokens = await logged_in(desk)
    desk.clear()
    assert (await desk.perform(UpdateClient(id=CLIENT, disabled=True)))["disabled"]
    assert desk.published == [ClientAnnounced(client_id=CLIENT, name="An app", disabled=True)]
    assert await refusal(desk, send_magic_link()) == ("forbidden", "client_disabled")
    assert await refusal(desk, refresh(tokens["refresh_token"])) == ("forbidden", "client_disabled")
    await desk.perform(UpdateClient(id=CLIENT, name="Still disabled"))
    assert await refusal(desk, send_magic_link()) == ("forbidden", "client_disabled")
    assert not (await desk.perform(UpdateClient(id=CLIENT, disabled=False)))["disabled"]
    await desk.perform(refresh(tokens["refresh_token"]))


async def test_links_lead_only_where_the_changed_client_may(desk: Desk) -> None:
    await desk.perform(UpdateClient(id=CLIENT, redirect_uris=("beak://callback",)))
    assert await refusal(desk, send_magic_link()) == ("invalid", "invalid_redirect_uri")
    await desk.perform(send_magic_link(redirect_uri="beak://callback"))
    wrong = UpdateClient(id=CLIENT, redirect_uris=("javascript:alert(1)",))
    assert await refusal(desk, wrong) == ("invalid", "invalid_redirect_uri")


async def test_a_change_of_what_somebody_changed_meanwhile_is_refused(desk: Desk) -> None:
    orders = [UpdateClient(id=CLIENT, name=f"Name {number}", version=1) for number in range(5)]
    answers: list[Any] = await asyncio.gather(*map(desk.perform, orders), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    assert sum(isinstance(answer, Refused) and answer.code == "client_changed" for answer in answers) == 4
    assert await refusal(desk, UpdateClient(id="nobody", name="x")) == ("not_found", "client_not_found")


async def test_a_change_that_comes_twice_is_one(desk: Desk) -> None:
    order, message_id = UpdateClient(id=OTHER_CLIENT, name="Better"), new_message_id()
    answers = [await desk.perform(order, id=message_id) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["version"] == 2


async def test_set_client_looks_has_mailer_record_them(desk: Desk) -> None:
    order = SetClientLooks(key=CLIENT, client_id=CLIENT, accent_colour="#0a7d4f", locale="de")
    for _ in range(2):
        assert await desk.perform(order, id="ab" * 16) is None
    [recorded] = desk.said(RecordClientLooks)
    assert recorded.client_id == CLIENT
    assert recorded.looks == ClientLooks(accent_colour="#0a7d4f", locale="de")
    assert [(entry.action, entry.client_id) for entry in desk.audited] == [("set_client_looks", CLIENT)]


async def test_set_client_looks_of_nobody_is_refused(desk: Desk) -> None:
    assert await refusal(desk, SetClientLooks(client_id="client_x")) == ("not_found", "client_not_found")
    assert desk.said(RecordClientLooks) == []


async def test_the_language_that_was_asked_for_goes_with_the_mail(desk: Desk) -> None:
    await desk.perform(send_magic_link(locale="de-AT"))
    assert [mail.locale for mail in desk.said(SendMail)] == ["de-AT"]


async def test_find_consent_address_orders_the_consent_carried_to_it(desk: Desk) -> None:
    user_id = (await logged_in(desk))["user_id"]
    order = FindConsentAddress(key=user_id, user_id=user_id, consent_version=3)
    for _ in range(2):
        await desk.perform(order, id="cd" * 16)
    [carried] = desk.said(CarryMarketingConsent)
    assert desk.reveal("mailer", carried.address) == ADDRESS
    assert (carried.user_id, carried.consent_version, carried.attempt) == (user_id, 3, 1)


async def test_an_address_that_is_not_proven_is_told_nobody(desk: Desk) -> None:
    await desk.perform(EnsureUser(reference="cus_1", email="new@example.com"), id=new_message_id())
    [ensured] = desk.said(UserEnsured)
    for user_id in (ensured.user_id, "user_nobody"):
        desk.clear()
        await desk.perform(FindConsentAddress(key=user_id, user_id=user_id, consent_version=1))
        [carried] = desk.said(CarryMarketingConsent)
        assert carried.address is None
