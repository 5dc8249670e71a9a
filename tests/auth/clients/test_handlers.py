import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.auth.clients.store import RECENT_SECONDS
from shared.bus.inbox import Outcome
from shared.bus.work import Work
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
from shared.messages.mailer.branding import ClientLooks, RecordClientLooks
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import CLIENT, OTHER_CLIENT, REDIRECT_URI, log_in, refresh, refusal, send_magic_link
from tests.service_harness import Refused, ServiceHarness


async def test_create_client_returns_and_publishes_the_client(harness: ServiceHarness) -> None:
    uris = ("https://app.example/a", "com.example.beak:/callback", "http://127.0.0.1:8080/dev/callback")
    client = await harness.deliver(CreateClient(name="Beak", redirect_uris=uris))
    assert client == {
        "id": client["id"],
        "name": "Beak",
        "redirect_uris": list(uris),
        "disabled": False,
        "press_to_redeem": False,
        "entitlements_claim": False,
        "created_at": iso_milliseconds(harness.now),
        "updated_at": iso_milliseconds(harness.now),
        "version": 1,
    }
    assert client["id"].startswith("test_client_")
    assert harness.published == [
        ClientCreated(client_id=client["id"]),
        ClientAnnounced(client_id=client["id"], name="Beak", disabled=False),
    ]
    await harness.deliver(send_magic_link(client_id=client["id"], redirect_uri="com.example.beak:/callback"))


async def test_links_wait_for_a_press_if_the_client_asks_for_it(harness: ServiceHarness) -> None:
    async def press_of_next_mail() -> bool:
        await harness.deliver(send_magic_link(client_id="mine"))
        variables = harness.variables_of(harness.published_of(SendMail)[-1])
        press: bool = variables["press"]
        return press

    client = await harness.deliver(
        CreateClient(id="mine", name="Beak", redirect_uris=(REDIRECT_URI,), press_to_redeem=True)
    )
    assert client["press_to_redeem"]
    assert await press_of_next_mail()
    assert (await harness.deliver(UpdateClient(id="mine", name="New")))["press_to_redeem"]
    assert not (await harness.deliver(UpdateClient(id="mine", press_to_redeem=False)))["press_to_redeem"]
    assert not await press_of_next_mail()


async def test_client_of_an_earlier_release_has_plain_links(harness: ServiceHarness) -> None:
    await harness.database["clients"].update_one(
        {"_id": CLIENT}, {"$unset": {"pressToRedeem": 1, "entitlementsClaim": 1}}
    )
    assert not (await harness.deliver(UpdateClient(id=CLIENT, name="New")))["press_to_redeem"]


async def test_create_client_accepts_a_given_id(harness: ServiceHarness) -> None:
    client = await harness.deliver(CreateClient(id="mine", name="Beak", redirect_uris=(REDIRECT_URI,)))
    assert client["id"] == "mine"


async def test_taken_id_is_refused(harness: ServiceHarness) -> None:
    command = CreateClient(id=CLIENT, name="Another", redirect_uris=("https://evil.example/",))
    assert await refusal(harness, command) == ("conflict", "client_already_exists")
    assert (await harness.database["clients"].find_one({"_id": CLIENT}))["name"] == "An app"
    assert harness.published == []


async def test_one_of_concurrent_registrations_of_one_id_succeeds(harness: ServiceHarness) -> None:
    command = CreateClient(id="mine", name="Beak", redirect_uris=(REDIRECT_URI,))
    results: list[Any] = await asyncio.gather(*(harness.deliver(command) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(result, dict) for result in results) == 1
    assert sum(isinstance(result, Refused) and result.code == "client_already_exists" for result in results) == 9


async def test_second_delivery_of_create_client_returns_the_same_client(harness: ServiceHarness) -> None:
    command, message_id = CreateClient(name="Beak", redirect_uris=(REDIRECT_URI,)), new_message_id()
    replies = [await harness.deliver(command, id=message_id) for _ in range(2)]
    assert replies[0] == replies[1]
    assert [type(message) for message in harness.published] == [ClientCreated, ClientAnnounced]


@pytest.mark.parametrize("uri", ["", "/callback", "javascript:alert(1)", "https://app.example/#x", "https:///x"])
async def test_redirect_uri_that_is_not_allowed_is_refused(harness: ServiceHarness, uri: str) -> None:
    command = CreateClient(name="Beak", redirect_uris=(REDIRECT_URI, uri))
    assert await refusal(harness, command) == ("invalid", "invalid_redirect_uri")


async def test_announce_client_publishes_the_current_state(harness: ServiceHarness) -> None:
    await harness.deliver(AnnounceClient(client_id=CLIENT))
    assert harness.published == [ClientAnnounced(client_id=CLIENT, name="An app", disabled=False)]


async def test_update_client_changes_and_publishes_only_given_properties(harness: ServiceHarness) -> None:
    before = (await harness.deliver(ListClients()))[0]
    harness.now += timedelta(minutes=1)
    after = await harness.deliver(UpdateClient(id=CLIENT, name="Better"))
    assert after == {**before, "name": "Better", "updated_at": iso_milliseconds(harness.now), "version": 2}
    assert after in await harness.deliver(ListClients())
    assert harness.published == [ClientAnnounced(client_id=CLIENT, name="Better", disabled=False)]
    assert [(entry.action, entry.client_id) for entry in harness.audited] == [("update_client", CLIENT)]


async def test_disabled_client_logs_nobody_in_until_it_is_enabled(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    harness.clear()
    assert (await harness.deliver(UpdateClient(id=CLIENT, disabled=True)))["disabled"]
    assert harness.published == [ClientAnnounced(client_id=CLIENT, name="An app", disabled=True)]
    assert await refusal(harness, send_magic_link()) == ("forbidden", "client_disabled")
    assert await refusal(harness, refresh(tokens["refresh_token"])) == ("forbidden", "client_disabled")
    await harness.deliver(UpdateClient(id=CLIENT, name="Still disabled"))
    assert await refusal(harness, send_magic_link()) == ("forbidden", "client_disabled")
    assert not (await harness.deliver(UpdateClient(id=CLIENT, disabled=False)))["disabled"]
    await harness.deliver(refresh(tokens["refresh_token"]))


async def test_links_are_checked_against_the_updated_redirect_uris(harness: ServiceHarness) -> None:
    await harness.deliver(UpdateClient(id=CLIENT, redirect_uris=("com.example.beak:/callback",)))
    assert await refusal(harness, send_magic_link()) == ("invalid", "invalid_redirect_uri")
    await harness.deliver(send_magic_link(redirect_uri="com.example.beak:/callback"))
    wrong = UpdateClient(id=CLIENT, redirect_uris=("javascript:alert(1)",))
    assert await refusal(harness, wrong) == ("invalid", "invalid_redirect_uri")


async def test_update_of_a_changed_version_is_refused(harness: ServiceHarness) -> None:
    commands = [UpdateClient(id=CLIENT, name=f"Name {number}", version=1) for number in range(5)]
    results: list[Any] = await asyncio.gather(*map(harness.deliver, commands), return_exceptions=True)
    assert sum(isinstance(result, dict) for result in results) == 1
    assert sum(isinstance(result, Refused) and result.code == "client_changed" for result in results) == 4
    assert await refusal(harness, UpdateClient(id="nobody", name="x")) == ("not_found", "client_not_found")


async def test_second_delivery_of_update_client_changes_nothing(harness: ServiceHarness) -> None:
    command, message_id = UpdateClient(id=OTHER_CLIENT, name="Better"), new_message_id()
    replies = [await harness.deliver(command, id=message_id) for _ in range(2)]
    assert replies[0] == replies[1]
    assert replies[0]["version"] == 2


async def test_set_client_looks_is_forwarded_to_mailer(harness: ServiceHarness) -> None:
    command = SetClientLooks(key=CLIENT, client_id=CLIENT, accent_colour="#0a7d4f", locale="de")
    for _ in range(2):
        assert await harness.deliver(command, id="ab" * 16) is None
    [recorded] = harness.published_of(RecordClientLooks)
    assert recorded.client_id == CLIENT
    assert recorded.looks == ClientLooks(accent_colour="#0a7d4f", locale="de")
    assert [(entry.action, entry.client_id) for entry in harness.audited] == [("set_client_looks", CLIENT)]


async def test_set_client_looks_of_an_unknown_client_is_refused(harness: ServiceHarness) -> None:
    assert await refusal(harness, SetClientLooks(client_id="client_x")) == ("not_found", "client_not_found")
    assert harness.published_of(RecordClientLooks) == []


async def test_another_instance_refuses_logins_through_a_disabled_client_soon(
    harness: ServiceHarness, new_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_harness() as another:
        seconds = 0.0
        monkeypatch.setattr(another.context.clients, "_clock", lambda: seconds)
        tokens = await log_in(another)
        await harness.deliver(UpdateClient(id=CLIENT, disabled=True))
        assert await refusal(harness, refresh(tokens["refresh_token"])) == ("forbidden", "client_disabled")
        seconds = RECENT_SECONDS - 0.01
        tokens = await another.deliver(refresh(tokens["refresh_token"]))
        seconds = RECENT_SECONDS
        assert await refusal(another, refresh(tokens["refresh_token"])) == ("forbidden", "client_disabled")


async def test_a_client_read_before_its_change_is_committed_is_not_kept(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = harness.inbox.commit

    async def read_and_commit(work: Work, outcome: Outcome) -> None:
        assert (await harness.context.clients.get_recent(CLIENT)).disabled_at is None
        await commit(work, outcome)

    monkeypatch.setattr(harness.inbox, "commit", read_and_commit)
    await harness.deliver(UpdateClient(id=CLIENT, disabled=True))
    assert (await harness.context.clients.get_recent(CLIENT)).disabled_at is not None
