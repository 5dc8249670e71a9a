import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.auth.accounts.api_keys import api_key
from shared.ids import new_message_id
from tests.auth.accounts.flows import (
    NOBODYS_ID,
    NOBODYS_KEY,
    an_application,
    an_owner,
    check_sign_in,
    create_application,
    delete_application,
    follow_up,
    left,
    sign_in,
    sign_in_with_email,
    sign_up,
    signed_in,
)
from tests.auth.flows import one_delivery, refusal
from tests.service_harness import ServiceHarness

MALFORMED = ["", "x", '{"$gt": ""}', NOBODYS_ID, "2YP47A5-YEWM1FG-MET9XB1-N6DN56M", "0" * 31]


async def test_an_application_is_made_for_a_year(accounts: ServiceHarness) -> None:
    accounts.now = datetime(2026, 2, 5, 11, 38, 56, 218_000, UTC)
    application = await an_application(accounts)
    assert application == {
        "created": True,
        "appname": "An app",
        "creationdate": "2026-02-05",
        "enddate": "2027-02-05T11:38:56.218Z",
        "uuid": str(UUID(application["uuid"])),
        "apiKey": api_key(UUID(application["uuid"])),
    }
    document = await accounts.database["applications"].find_one({})
    owner = await accounts.database["owners"].find_one({})
    assert document["ownerId"] == owner["_id"]
    assert document.keys() == {"_id", "ownerId", "name", "passwordless", "createdAt", "endsAt", "version"}
    inbox = str(await accounts.database["inbox"].find().to_list())
    assert application["apiKey"] not in inbox
    assert application["uuid"] not in inbox


async def test_a_name_is_one_applications_among_those_of_an_owner(accounts: ServiceHarness) -> None:
    owner, other = await an_owner(accounts), await an_owner(accounts, email="other@example.com")
    await accounts.deliver(create_application(owner["uuid"]))
    assert await refusal(accounts, create_application(owner["uuid"])) == ("conflict", "appname_taken")
    await accounts.deliver(create_application(owner["uuid"], "an app"))
    await accounts.deliver(create_application(other["uuid"]))


async def test_an_application_delivered_twice_is_made_once(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    order = create_application(owner["uuid"])
    delivery = one_delivery(accounts, order)
    assert await accounts.deliver(order, **delivery) == await accounts.deliver(order, **delivery)
    assert (await left(accounts))["applications"] == 1


async def test_an_application_goes_with_its_users_and_no_others(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    kept = await an_application(accounts, email="other@example.com")
    _, token = await signed_in(accounts, application["apiKey"])
    await accounts.deliver(sign_up(kept["apiKey"]))

    order = delete_application(application["apiKey"])
    delivery = one_delivery(accounts, order)
    for _ in range(2):
        assert await accounts.deliver(order, **delivery) == {
            "affectedRows": 1,
            "message": "All auth users of this application are deleted too",
        }
    # Nobody gets in any more, although the user's document may still be there.
    assert await refusal(accounts, check_sign_in(token)) == ("unauthenticated", "not_logged_in")
    for order in (sign_up(application["apiKey"]), sign_in_with_email(application["apiKey"])):
        assert await refusal(accounts, order) == ("not_found", "application_not_found")
    await follow_up(accounts)

    assert await left(accounts) == {"owners": 2, "applications": 1, "application_users": 1}


async def test_an_application_that_is_not_there_is_not_deleted(accounts: ServiceHarness) -> None:
    nothing = {"affectedRows": 0, "message": "nothing to delete"}
    assert await accounts.deliver(delete_application(NOBODYS_KEY)) == nothing


@pytest.mark.parametrize("key", MALFORMED)
async def test_what_is_no_key_is_refused(accounts: ServiceHarness, key: str) -> None:
    await an_application(accounts)
    for order in (delete_application(key), sign_up(key), sign_in(NOBODYS_ID, key), sign_in_with_email(key)):
        assert await refusal(accounts, order) == ("unauthenticated", "malformed_api_key")


async def test_a_large_application_is_emptied_some_at_a_time(
    accounts: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.accounts.handlers.BATCH", 3)
    application = await an_application(accounts)
    for n in range(7):
        await accounts.deliver(sign_up(application["apiKey"], email=f"{n}@example.com"))
    accounts.clear()

    await accounts.deliver(delete_application(application["apiKey"]))
    [order] = accounts.published
    await accounts.deliver(order)
    assert (await left(accounts))["application_users"] == 4
    await follow_up(accounts)

    assert (await left(accounts))["application_users"] == 0


async def test_no_user_outlives_an_application_that_is_deleted_while_they_sign_up(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    orders = [sign_up(application["apiKey"], email=f"{n}@example.com") for n in range(20)]
    orders.insert(5, delete_application(application["apiKey"]))

    outcomes = await asyncio.gather(
        *(accounts.deliver(order, id=new_message_id()) for order in orders), return_exceptions=True
    )
    await follow_up(accounts)

    assert await left(accounts) == {"owners": 1, "applications": 0, "application_users": 0}
    assert {getattr(outcome, "code", "done") for outcome in outcomes} <= {"done", "application_not_found"}
