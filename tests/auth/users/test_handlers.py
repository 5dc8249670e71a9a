import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from shared.ids import new_message_id
from shared.messages import Caller, Message, Sealed, iso_milliseconds
from shared.messages.auth.users import (
    EnsureUser,
    FindConsentAddress,
    GetUser,
    GetUserConsent,
    ListUsers,
    SetMarketingConsent,
    UserCreated,
    UserEnsured,
)
from shared.messages.mailer.consents import CarryMarketingConsent, GetMarketingConsent, RecordMarketingConsent
from tests.auth.flows import ADDRESS, log_in, refusal
from tests.service_harness import ServiceHarness


async def test_get_user_returns_the_user_with_all_identifiers(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    first = await harness.database["identifiers"].find_one({})
    removed = harness.now + timedelta(days=1)
    await harness.database["identifiers"].insert_one(
        {**first, "_id": f"{first['_id']}z", "identifierValue": "old@example.com", "removedAt": removed}
    )
    created = iso_milliseconds(harness.now)
    assert await harness.deliver(GetUser(user_id=user_id)) == {
        "id": user_id,
        "created_at": created,
        "identifiers": [
            {
                "id": first["_id"],
                "identifier_type": "email",
                "identifier_value": ADDRESS,
                "created_at": created,
                "updated_at": created,
                "verified_at": created,
                "removed_at": None,
            },
            {
                "id": f"{first['_id']}z",
                "identifier_type": "email",
                "identifier_value": "old@example.com",
                "created_at": created,
                "updated_at": created,
                "verified_at": created,
                "removed_at": iso_milliseconds(removed),
            },
        ],
    }


@pytest.mark.parametrize("user_id", ["user_unknown", "x", '{"$ne": null}', "a\x00b", "ü"])
async def test_unknown_user_is_not_found(harness: ServiceHarness, user_id: str) -> None:
    await log_in(harness)
    assert await refusal(harness, GetUser(user_id=user_id)) == ("not_found", "not_found")


async def test_concurrent_queries_return_their_own_users(harness: ServiceHarness) -> None:
    addresses = [f"person{number}@example.com" for number in range(20)]
    logins = [await log_in(harness, identifier_value=address) for address in addresses]
    users = await asyncio.gather(*(harness.deliver(GetUser(user_id=login["user_id"])) for login in logins))
    assert [user["id"] for user in users] == [login["user_id"] for login in logins]
    assert [user["identifiers"][0]["identifier_value"] for user in users] == addresses


async def test_ensure_user_creates_a_user_with_an_unverified_address(harness: ServiceHarness) -> None:
    assert await harness.deliver(EnsureUser(reference="cus_1", email="Ana@Example.com")) is None
    [created] = harness.published_of(UserCreated)
    assert harness.published_of(UserEnsured) == [UserEnsured(reference="cus_1", user_id=created.user_id)]
    user = await harness.deliver(GetUser(user_id=created.user_id))
    [identifier] = user["identifiers"]
    assert (identifier["identifier_value"], identifier["verified_at"]) == (ADDRESS, None)


async def test_ensure_user_finds_an_existing_user(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    harness.clear()
    await harness.deliver(EnsureUser(reference="cus_1", email=ADDRESS))
    assert harness.published == [UserEnsured(reference="cus_1", user_id=user_id)]


async def test_concurrent_ensure_user_creates_one_user(harness: ServiceHarness) -> None:
    commands = [EnsureUser(reference=f"cus_{number}", email=ADDRESS) for number in range(20)]
    await asyncio.gather(*map(harness.deliver, commands))
    [created] = harness.published_of(UserCreated)
    assert {ensured.user_id for ensured in harness.published_of(UserEnsured)} == {created.user_id}
    assert {ensured.reference for ensured in harness.published_of(UserEnsured)} == {
        command.reference for command in commands
    }
    assert await harness.database["users"].count_documents({}) == 1


async def test_second_delivery_of_ensure_user_publishes_nothing(harness: ServiceHarness) -> None:
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(EnsureUser(reference="cus_1", email=ADDRESS), id=message_id)
    assert len(harness.published_of(UserEnsured)) == 1


@pytest.mark.parametrize("email", ["nobody", "taro.@docomo.ne.jp", "ta..ro@docomo.ne.jp"])
async def test_ensure_user_refuses_an_invalid_address(harness: ServiceHarness, email: str) -> None:
    assert await refusal(harness, EnsureUser(reference="cus_1", email=email)) == ("invalid", "invalid_email")
    assert harness.published == []


@pytest.mark.parametrize(
    "caller", [Caller(kind="user", user_id="u"), Caller(kind="internal")], ids=lambda caller: caller.kind
)
async def test_marketing_consent_is_forwarded_with_its_source(harness: ServiceHarness, caller: Caller) -> None:
    user_id = (await log_in(harness))["user_id"]
    harness.clear()
    command = SetMarketingConsent(user_id=user_id, level="general")
    message_id = new_message_id()
    for _ in range(2):
        assert await harness.deliver(command, caller=caller, id=message_id) is None
    assert harness.published == [RecordMarketingConsent(user_id=user_id, level="general", source=caller.kind)]


@pytest.mark.parametrize(
    "message", [SetMarketingConsent(user_id="user_x", level="none"), GetUserConsent(user_id="user_x")]
)
async def test_marketing_consent_of_an_unknown_user_is_refused(harness: ServiceHarness, message: Message) -> None:
    assert await refusal(harness, message) == ("not_found", "not_found")
    assert harness.published == []


async def test_query_for_marketing_consent_is_forwarded(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    harness.clear()
    assert await harness.deliver(GetUserConsent(user_id=user_id)) is None
    assert harness.published == [GetMarketingConsent(user_id=user_id)]


async def test_find_consent_address_sends_the_verified_address_to_mailer(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    command = FindConsentAddress(key=user_id, user_id=user_id, consent_version=3)
    for _ in range(2):
        await harness.deliver(command, id="cd" * 16)
    [forwarded] = harness.published_of(CarryMarketingConsent)
    assert harness.unseal_secret("mailer", forwarded.address) == ADDRESS
    assert (forwarded.user_id, forwarded.consent_version, forwarded.attempt) == (user_id, 3, 1)


async def test_find_consent_address_sends_no_unverified_address(harness: ServiceHarness) -> None:
    await harness.deliver(EnsureUser(reference="cus_1", email="new@example.com"), id=new_message_id())
    [ensured] = harness.published_of(UserEnsured)
    for user_id in (ensured.user_id, "user_nobody"):
        harness.clear()
        await harness.deliver(FindConsentAddress(key=user_id, user_id=user_id, consent_version=1))
        [forwarded] = harness.published_of(CarryMarketingConsent)
        assert forwarded.address is None


async def people(harness: ServiceHarness, *addresses: str) -> list[str]:
    """Create the users of these addresses, one a minute, and return their IDs."""
    for address in addresses:
        harness.now += timedelta(minutes=1)
        await harness.deliver(EnsureUser(reference=address, email=address))
    ensured = {each.reference: each.user_id for each in harness.published if isinstance(each, UserEnsured)}
    return [ensured[address] for address in addresses]


async def test_users_are_listed_newest_first_in_pages(harness: ServiceHarness) -> None:
    ids = await people(harness, "ada@example.com", "ben@example.com", "cleo@example.com")
    first = await harness.deliver(ListUsers(limit=2))
    second = await harness.deliver(ListUsers(limit=2, cursor=first["next_cursor"]))
    assert [user["id"] for user in first["users"] + second["users"]] == ids[::-1]
    assert [user["identifiers"][0]["identifier_value"] for user in second["users"]] == ["ada@example.com"]
    assert second["next_cursor"] is None
    since = await harness.deliver(ListUsers(since=harness.now))
    assert [user["id"] for user in since["users"]] == ids[-1:]
    assert await refusal(harness, ListUsers(cursor="other")) == ("invalid", "invalid_cursor")


async def test_whole_address_is_found_without_a_setting(harness: ServiceHarness) -> None:
    ada, _ = await people(harness, "ada@example.com", "ada@example.com.au")
    found = await harness.deliver(ListUsers(search=Sealed.of(" ADA@Example.com ")))
    assert [user["id"] for user in found["users"]] == [ada]
    assert (await harness.deliver(ListUsers(search=Sealed.of("none@example.com"))))["users"] == []
    for part in ("ada", "@example.com", "ada@"):
        assert await refusal(harness, ListUsers(search=Sealed.of(part))) == ("forbidden", "partial_search_disabled")


async def test_part_of_an_address_is_found_where_the_settings_allow_it(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with new_harness(user_search="part") as harness:
        ada, ben, cleo = await people(harness, "ada@work.example.com", "ben@home.example.com", "cleo@work.example.com")

        async def found(part: str, **page: Any) -> Any:
            return await harness.deliver(ListUsers(search=Sealed.of(part), **page))

        assert [user["id"] for user in (await found("@WORK"))["users"]] == [ada, cleo]
        assert [user["id"] for user in (await found("ben@"))["users"]] == [ben]
        for part in (".*", "work?example", "ad", ""):
            assert (await found(part))["users"] == []
        first = await found("example.com", limit=2)
        second = await found("example.com", limit=2, cursor=first["next_cursor"])
        assert [user["id"] for user in first["users"] + second["users"]] == [ada, ben, cleo]
        assert second["next_cursor"] is None
        gone = ListUsers(search=Sealed.of("example"), cursor="none")
        assert await refusal(harness, gone) == ("invalid", "invalid_cursor")
