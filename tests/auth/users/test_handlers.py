import asyncio
from datetime import timedelta

import pytest

from shared.ids import new_message_id
from shared.messages import Caller, iso_milliseconds
from shared.messages.auth.users import EnsureUser, GetUser, SetMarketingConsent, UserCreated, UserEnsured
from shared.messages.mailer.consents import RecordMarketingConsent
from tests.auth.flows import ADDRESS, logged_in, refusal
from tests.service_harness import ServiceHarness


async def test_get_user_shows_the_user_with_all_identifiers(harness: ServiceHarness) -> None:
    user_id = (await logged_in(harness))["user_id"]
    first = await harness.database["identifiers"].find_one({})
    added = harness.now + timedelta(days=1)
    await harness.database["identifiers"].insert_one(
        {**first, "_id": f"{first['_id'][:-1]}z", "identifierValue": "old@example.com", "removedAt": added}
    )
    made = iso_milliseconds(harness.now)
    assert await harness.deliver(GetUser(user_id=user_id)) == {
        "id": user_id,
        "created_at": made,
        "identifiers": [
            {
                "id": first["_id"],
                "identifier_type": "email",
                "identifier_value": ADDRESS,
                "created_at": made,
                "updated_at": made,
                "verified_at": made,
                "removed_at": None,
            },
            {
                "id": f"{first['_id'][:-1]}z",
                "identifier_type": "email",
                "identifier_value": "old@example.com",
                "created_at": made,
                "updated_at": made,
                "verified_at": made,
                "removed_at": iso_milliseconds(added),
            },
        ],
    }


@pytest.mark.parametrize("user_id", ["user_unknown", "x", '{"$ne": null}', "a\x00b", "ü"])
async def test_an_unknown_user_is_not_found(harness: ServiceHarness, user_id: str) -> None:
    await logged_in(harness)
    assert await refusal(harness, GetUser(user_id=user_id)) == ("not_found", "not_found")


async def test_users_asked_for_at_once_are_not_mixed_up(harness: ServiceHarness) -> None:
    addresses = [f"person{number}@example.com" for number in range(20)]
    answers = [await logged_in(harness, identifier_value=address) for address in addresses]
    users = await asyncio.gather(*(harness.deliver(GetUser(user_id=answer["user_id"])) for answer in answers))
    assert [user["id"] for user in users] == [answer["user_id"] for answer in answers]
    assert [user["identifiers"][0]["identifier_value"] for user in users] == addresses


async def test_ensure_user_makes_a_user_who_has_shown_nothing_yet(harness: ServiceHarness) -> None:
    assert await harness.deliver(EnsureUser(reference="cus_1", email="Ana@Example.com")) is None
    [made] = harness.published_of(UserCreated)
    assert harness.published_of(UserEnsured) == [UserEnsured(reference="cus_1", user_id=made.user_id)]
    user = await harness.deliver(GetUser(user_id=made.user_id))
    [identifier] = user["identifiers"]
    assert (identifier["identifier_value"], identifier["verified_at"]) == (ADDRESS, None)


async def test_ensure_user_finds_the_user_there_is(harness: ServiceHarness) -> None:
    user_id = (await logged_in(harness))["user_id"]
    harness.clear()
    await harness.deliver(EnsureUser(reference="cus_1", email=ADDRESS))
    assert harness.published == [UserEnsured(reference="cus_1", user_id=user_id)]


async def test_ensure_user_in_parallel_makes_one_user(harness: ServiceHarness) -> None:
    orders = [EnsureUser(reference=f"cus_{number}", email=ADDRESS) for number in range(20)]
    await asyncio.gather(*map(harness.deliver, orders))
    [made] = harness.published_of(UserCreated)
    assert {ensured.user_id for ensured in harness.published_of(UserEnsured)} == {made.user_id}
    assert {ensured.reference for ensured in harness.published_of(UserEnsured)} == {order.reference for order in orders}
    assert await harness.database["users"].count_documents({}) == 1


async def test_ensure_user_delivered_twice_answers_alike(harness: ServiceHarness) -> None:
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(EnsureUser(reference="cus_1", email=ADDRESS), id=message_id)
    assert len(harness.published_of(UserEnsured)) == 1


async def test_ensure_user_refuses_what_is_no_address(harness: ServiceHarness) -> None:
    assert await refusal(harness, EnsureUser(reference="cus_1", email="nobody")) == ("invalid", "invalid_email")
    assert harness.published == []


@pytest.mark.parametrize(
    "caller", [Caller(kind="user", user_id="u"), Caller(kind="internal")], ids=lambda caller: caller.kind
)
async def test_consent_is_handed_over_with_its_source(harness: ServiceHarness, caller: Caller) -> None:
    user_id = (await logged_in(harness))["user_id"]
    harness.clear()
    order = SetMarketingConsent(user_id=user_id, level="general")
    message_id = new_message_id()
    for _ in range(2):
        assert await harness.deliver(order, caller=caller, id=message_id) is None
    assert harness.published == [RecordMarketingConsent(user_id=user_id, level="general", source=caller.kind)]


async def test_consent_of_an_unknown_user_is_refused(harness: ServiceHarness) -> None:
    assert await refusal(harness, SetMarketingConsent(user_id="user_x", level="none")) == ("not_found", "not_found")
    assert harness.published == []
