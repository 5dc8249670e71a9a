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
from tests.service_harness import Refused, ServiceHarness


async def test_a_client_is_shown_as_it_was_registered(harness: ServiceHarness) -> None:
    uris = ("https://app.example/a", "beak://callback", "http://127.0.0.1:8080/dev/callback")
    client = await harness.deliver(CreateClient(name="Beak", redirect_uris=uris))
    assert client == {
        "id": client["id"],
        "name": "Beak",
        "redirect_uris": list(uris),
        "disabled": False,
        "created_at": iso_milliseconds(harness.now),
        "updated_at": iso_milliseconds(harness.now),
        "version": 1,
    }
    assert client["id"].startswith("test_client_")
    assert harness.published == [
        ClientCreated(client_id=client["id"]),
        ClientAnnounced(client_id=client["id"], name="Beak", disabled=False),
    ]
    await harness.deliver(send_magic_link(client_id=client["id"], redirect_uri="beak://callback"))


async def test_an_id_of_the_operators_choice_is_taken_as_it_is(harness: ServiceHarness) -> None:
    client = await harness.deliver(CreateClient(id="mine", name="Beak", redirect_uris=(REDIRECT_URI,)))
    assert client["id"] == "mine"


async def test_an_id_in_use_is_refused(harness: ServiceHarness) -> None:
    order = CreateClient(id=CLIENT, name="Another", redirect_uris=("https://evil.example/",))
    assert await refusal(harness, order) == ("conflict", "client_already_exists")
    assert (await harness.database["clients"].find_one({"_id": CLIENT}))["name"] == "An app"
    assert harness.published == []


async def test_of_parallel_registrations_under_one_id_one_succeeds(harness: ServiceHarness) -> None:
    order = CreateClient(id="mine", name="Beak", redirect_uris=(REDIRECT_URI,))
    answers: list[Any] = await asyncio.gather(*(harness.deliver(order) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    assert sum(isinstance(answer, Refused) and answer.code == "client_already_exists" for answer in answers) == 9


async def test_a_second_delivery_shows_the_same_client(harness: ServiceHarness) -> None:
    order, message_id = CreateClient(name="Beak", redirect_uris=(REDIRECT_URI,)), new_message_id()
    answers = [await harness.deliver(order, id=message_id) for _ in range(2)]
    assert answers[0] == answers[1]
    assert [type(message) for message in harness.published] == [ClientCreated, ClientAnnounced]


@pytest.mark.parametrize("uri", ["", "/callback", "javascript:alert(1)", "https://app.example/#x", "https:///x"])
async def test_a_uri_that_no_app_may_have_is_refused(harness: ServiceHarness, uri: str) -> None:
    order = CreateClient(name="Beak", redirect_uris=(REDIRECT_URI, uri))
    assert await refusal(harness, order) == ("invalid", "invalid_redirect_uri")


async def test_a_client_is_announced_as_it_is_now(harness: ServiceHarness) -> None:
    await harness.deliver(AnnounceClient(client_id=CLIENT))
    assert harness.published == [ClientAnnounced(client_id=CLIENT, name="An app", disabled=False)]


async def test_what_is_changed_of_a_client_is_announced_and_the_rest_stays(harness: ServiceHarness) -> None:
    before = (await harness.deliver(ListClients()))[0]
    harness.now += timedelta(minutes=1)
    after = await harness.deliver(UpdateClient(id=CLIENT, name="Better"))
    assert after == {**before, "name": "Better", "updated_at": iso_milliseconds(harness.now), "version": 2}
    assert after in await harness.deliver(ListClients())
    assert harness.published == [ClientAnnounced(client_id=CLIENT, name="Better", disabled=False)]
    assert [(entry.action, entry.client_id) for entry in harness.audited] == [("update_client", CLIENT)]


async def test_a_disabled_client_logs_nobody_in_until_it_is_enabled(harness: ServiceHarness) -> None:
    tokens = await logged_in(harness)
    harness.clear()
    assert (await harness.deliver(UpdateClient(id=CLIENT, disabled=True)))["disabled"]
    assert harness.published == [ClientAnnounced(client_id=CLIENT, name="An app", disabled=True)]
    assert await refusal(harness, send_magic_link()) == ("forbidden", "client_disabled")
    assert await refusal(harness, refresh(tokens["refresh_token"])) == ("forbidden", "client_disabled")
    await harness.deliver(UpdateClient(id=CLIENT, name="Still disabled"))
    assert await refusal(harness, send_magic_link()) == ("forbidden", "client_disabled")
    assert not (await harness.deliver(UpdateClient(id=CLIENT, disabled=False)))["disabled"]
    await harness.deliver(refresh(tokens["refresh_token"]))


async def test_links_lead_only_where_the_changed_client_may(harness: ServiceHarness) -> None:
    await harness.deliver(UpdateClient(id=CLIENT, redirect_uris=("beak://callback",)))
    assert await refusal(harness, send_magic_link()) == ("invalid", "invalid_redirect_uri")
    await harness.deliver(send_magic_link(redirect_uri="beak://callback"))
    wrong = UpdateClient(id=CLIENT, redirect_uris=("javascript:alert(1)",))
    assert await refusal(harness, wrong) == ("invalid", "invalid_redirect_uri")


async def test_a_change_of_what_somebody_changed_meanwhile_is_refused(harness: ServiceHarness) -> None:
    orders = [UpdateClient(id=CLIENT, name=f"Name {number}", version=1) for number in range(5)]
    answers: list[Any] = await asyncio.gather(*map(harness.deliver, orders), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    assert sum(isinstance(answer, Refused) and answer.code == "client_changed" for answer in answers) == 4
    assert await refusal(harness, UpdateClient(id="nobody", name="x")) == ("not_found", "client_not_found")


async def test_a_change_that_comes_twice_is_one(harness: ServiceHarness) -> None:
    order, message_id = UpdateClient(id=OTHER_CLIENT, name="Better"), new_message_id()
    answers = [await harness.deliver(order, id=message_id) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["version"] == 2


async def test_set_client_looks_has_mailer_record_them(harness: ServiceHarness) -> None:
    order = SetClientLooks(key=CLIENT, client_id=CLIENT, accent_colour="#0a7d4f", locale="de")
    for _ in range(2):
        assert await harness.deliver(order, id="ab" * 16) is None
    [recorded] = harness.published_of(RecordClientLooks)
    assert recorded.client_id == CLIENT
    assert recorded.looks == ClientLooks(accent_colour="#0a7d4f", locale="de")
    assert [(entry.action, entry.client_id) for entry in harness.audited] == [("set_client_looks", CLIENT)]


async def test_set_client_looks_of_nobody_is_refused(harness: ServiceHarness) -> None:
    assert await refusal(harness, SetClientLooks(client_id="client_x")) == ("not_found", "client_not_found")
    assert harness.published_of(RecordClientLooks) == []


async def test_the_language_that_was_asked_for_goes_with_the_mail(harness: ServiceHarness) -> None:
    await harness.deliver(send_magic_link(locale="de-AT"))
    assert [mail.locale for mail in harness.published_of(SendMail)] == ["de-AT"]


async def test_find_consent_address_orders_the_consent_carried_to_it(harness: ServiceHarness) -> None:
    user_id = (await logged_in(harness))["user_id"]
    order = FindConsentAddress(key=user_id, user_id=user_id, consent_version=3)
    for _ in range(2):
        await harness.deliver(order, id="cd" * 16)
    [carried] = harness.published_of(CarryMarketingConsent)
    assert harness.unseal_secret("mailer", carried.address) == ADDRESS
    assert (carried.user_id, carried.consent_version, carried.attempt) == (user_id, 3, 1)


async def test_an_address_that_is_not_proven_is_told_nobody(harness: ServiceHarness) -> None:
    await harness.deliver(EnsureUser(reference="cus_1", email="new@example.com"), id=new_message_id())
    [ensured] = harness.published_of(UserEnsured)
    for user_id in (ensured.user_id, "user_nobody"):
        harness.clear()
        await harness.deliver(FindConsentAddress(key=user_id, user_id=user_id, consent_version=1))
        [carried] = harness.published_of(CarryMarketingConsent)
        assert carried.address is None
