import asyncio
from datetime import timedelta

import pytest

from shared.ids import new_message_id
from shared.messages import Caller, iso_milliseconds
from shared.messages.auth.users import EnsureUser, GetUser, SetMarketingConsent, UserCreated, UserEnsured
from shared.messages.mailer.consents import RecordMarketingConsent
from tests.auth.flows import ADDRESS, logged_in, refusal
from tests.desk import Desk


async def test_get_user_shows_the_user_with_all_identifiers(desk: Desk) -> None:
    user_id = (await logged_in(desk))["user_id"]
    first = await desk.database["identifiers"].find_one({})
    added = desk.now + timedelta(days=1)
    await desk.database["identifiers"].insert_one(
        {**first, "_id": f"{first['_id'][:-1]}z", "identifierValue": "old@example.com", "removedAt": added}
    )
    made = iso_milliseconds(desk.now)
    assert await desk.perform(GetUser(user_id=user_id)) == {
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
async def test_an_unknown_user_is_not_found(desk: Desk, user_id: str) -> None:
    await logged_in(desk)
    assert await refusal(desk, GetUser(user_id=user_id)) == ("not_found", "not_found")


async def test_users_asked_for_at_once_are_not_mixed_up(desk: Desk) -> None:
    addresses = [f"person{number}@example.com" for number in range(20)]
    answers = [await logged_in(desk, identifier_value=address) for address in addresses]
    users = await asyncio.gather(*(desk.perform(GetUser(user_id=answer["user_id"])) for answer in answers))
    assert [user["id"] for user in users] == [answer["user_id"] for answer in answers]
    assert [user["identifiers"][0]["identifier_value"] for user in users] == addresses


async def test_ensure_user_makes_a_user_who_has_shown_nothing_yet(desk: Desk) -> None:
    assert await desk.perform(EnsureUser(reference="cus_1", email="Ana@Example.com")) is None
    [made] = desk.said(UserCreated)
    assert desk.said(UserEnsured) == [UserEnsured(reference="cus_1", user_id=made.user_id)]
    user = await desk.perform(GetUser(user_id=made.user_id))
    [identifier] = user["identifiers"]
    assert (identifier["identifier_value"], identifier["verified_at"]) == (ADDRESS, None)


async def test_ensure_user_finds_the_user_there_is(desk: Desk) -> None:
    user_id = (await logged_in(desk))["user_id"]
    desk.clear()
    await desk.perform(EnsureUser(reference="cus_1", email=ADDRESS))
    assert desk.published == [UserEnsured(reference="cus_1", user_id=user_id)]


async def test_ensure_user_in_parallel_makes_one_user(desk: Desk) -> None:
    orders = [EnsureUser(reference=f"cus_{number}", email=ADDRESS) for number in range(20)]
    await asyncio.gather(*map(desk.perform, orders))
    [made] = desk.said(UserCreated)
    assert {ensured.user_id for ensured in desk.said(UserEnsured)} == {made.user_id}
    assert {ensured.reference for ensured in desk.said(UserEnsured)} == {order.reference for order in orders}
    assert await desk.database["users"].count_documents({}) == 1


async def test_ensure_user_delivered_twice_answers_alike(desk: Desk) -> None:
    message_id = new_message_id()
    for _ in range(2):
        await desk.perform(EnsureUser(reference="cus_1", email=ADDRESS), id=message_id)
    assert len(desk.said(UserEnsured)) == 1


async def test_ensure_user_refuses_what_is_no_address(desk: Desk) -> None:
    assert await refusal(desk, EnsureUser(reference="cus_1", email="nobody")) == ("invalid", "invalid_email")
    assert desk.published == []


@pytest.mark.parametrize(
    "caller", [Caller(kind="user", user_id="u"), Caller(kind="internal")], ids=lambda caller: caller.kind
)
async def test_consent_is_handed_over_with_its_source(desk: Desk, caller: Caller) -> None:
    user_id = (await logged_in(desk))["user_id"]
    desk.clear()
    order = SetMarketingConsent(user_id=user_id, level="general")
    message_id = new_message_id()
    for _ in range(2):
        assert await desk.perform(order, caller=caller, id=message_id) is None
    assert desk.published == [RecordMarketingConsent(user_id=user_id, level="general", source=caller.kind)]


async def test_consent_of_an_unknown_user_is_refused(desk: Desk) -> None:
    assert await refusal(desk, SetMarketingConsent(user_id="user_x", level="none")) == ("not_found", "not_found")
    assert desk.published == []
