"""Applications of earlier releases, whose document ID was the UUID of their API key, get keyed hashes of their keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from structlog.testing import capture_logs

from services.auth.accounts.api_keys import api_key
from services.auth.app import MIGRATIONS
from tests.auth.accounts.flows import (
    CHEAP,
    check_sign_in,
    delete_application,
    delete_owner,
    document_counts,
    follow_up,
    get_application_user,
    new_application,
    new_owner,
    new_user,
    sign_in_with_email,
    sign_up,
    update_application_user,
)
from tests.auth.flows import refusal
from tests.service_harness import ServiceHarness

NewHarness = Callable[..., ServiceHarness]


async def make_former(harness: ServiceHarness, application: dict[str, Any]) -> str:
    """Store the only new application and its users as an earlier release did, and return the former ID."""
    documents = harness.database["applications"]
    document = await documents.find_one({"keyHash": {"$type": "string"}})
    assert document is not None
    await documents.delete_one({"_id": document["_id"]})
    former = {**document, "_id": application["uuid"]}
    del former["keyHash"]
    await documents.insert_one(former)
    users = harness.database["application_users"]
    await users.update_many({"applicationId": document["_id"]}, {"$set": {"applicationId": application["uuid"]}})
    return str(application["uuid"])


async def former_token(harness: ServiceHarness, token: str, former_id: str) -> str:
    """A token as an earlier release signed it: with the UUID of the API key as ``aud``."""
    claims = jwt.decode(token, options={"verify_signature": False})
    claims.pop("iss")
    signed: str = harness.context.signer.sign({**claims, "aud": former_id}, typ="application+jwt")
    return signed


@pytest.fixture
async def former(new_harness: NewHarness) -> AsyncIterator[dict[str, Any]]:
    """An application of an earlier release with three users, and a token of one of them."""
    async with new_harness(**CHEAP) as before:
        application = await new_application(before)
        _, token = await new_user(before, application["apiKey"])
        for number in range(2):
            await before.deliver(sign_up(application["apiKey"], email=f"{number}@example.com"))
        former_id = await make_former(before, application)
        yield {**application, "token": await former_token(before, token, former_id)}


async def test_key_of_an_earlier_release_still_works_and_is_stored_nowhere(
    new_harness: NewHarness, former: dict[str, Any]
) -> None:
    async with new_harness(**CHEAP) as after:
        await after.deliver(sign_in_with_email(former["apiKey"]))
        await after.deliver(sign_up(former["apiKey"], email="new@example.com"))
        stored = str([await after.database[name].find().to_list() for name in ("applications", "application_users")])
        assert former["uuid"] not in stored
        assert await document_counts(after) == {"owners": 1, "applications": 1, "application_users": 4}


async def test_token_of_an_earlier_release_works_until_it_expires_and_shows_no_key(
    new_harness: NewHarness, former: dict[str, Any]
) -> None:
    async with new_harness(**CHEAP) as after:
        token = former["token"]
        await after.deliver(check_sign_in(token))
        await after.deliver(update_application_user(token, username="M"))
        shown = await after.deliver(get_application_user(token))
        assert former["apiKey"] not in str(shown)
        # The key can be computed from the token, and opens no deletion.
        key = api_key(UUID(jwt.decode(token, options={"verify_signature": False})["aud"]))
        command = delete_application(key, password=None, owner_token=token)
        assert await refusal(after, command) == ("unauthenticated", "not_logged_in")


async def test_next_job_continues_an_interrupted_one(new_harness: NewHarness, former: dict[str, Any]) -> None:
    async with new_harness(**CHEAP) as after:
        second = await new_application(after, email="other@example.com")
        await after.deliver(sign_up(second["apiKey"]))
        await after.migrate(MIGRATIONS)
        await after.database["schema"].delete_many({})
        # The first application is moved, the second is not yet.
        moved = await after.database["applications"].find_one({"name": "An app"})
        assert moved is not None
        owner = await after.database["owners"].find_one({"email": "other@example.com"})
        assert owner is not None
        document = await after.database["applications"].find_one_and_delete({"ownerId": owner["_id"]})
        del document["keyHash"]
        await after.database["applications"].insert_one({**document, "_id": second["uuid"]})
        await after.database["application_users"].update_many(
            {"applicationId": document["_id"]}, {"$set": {"applicationId": second["uuid"]}}
        )
    async with new_harness(**CHEAP) as again:
        await again.migrate(MIGRATIONS)
        for application in (former, second):
            await again.deliver(sign_in_with_email(application["apiKey"]))
        assert await again.database["applications"].count_documents({"keyHash": None}) == 0


async def test_users_left_by_an_interrupted_job_are_moved_by_the_next(
    new_harness: NewHarness, former: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.accounts.api_key_upgrade.MOVED_AT_ONCE", 2)
    async with new_harness(**CHEAP) as after:
        await after.migrate(MIGRATIONS)
        await after.database["schema"].delete_many({})
        # The job was killed after the application and one batch of users.
        users = after.database["application_users"]
        left = await users.find_one_and_update({"email": "0@example.com"}, {"$set": {"applicationId": former["uuid"]}})
        assert left is not None
    async with new_harness(**CHEAP) as again:
        await again.migrate(MIGRATIONS)
        await again.deliver(sign_in_with_email(former["apiKey"], "0@example.com"))
        assert await again.database["application_users"].distinct("applicationId") == [left["applicationId"]]


async def test_address_that_was_registered_twice_does_not_stop_the_job(
    new_harness: NewHarness, former: dict[str, Any]
) -> None:
    async with new_harness(**CHEAP) as after:
        await after.deliver(sign_in_with_email(former["apiKey"]))
        users = after.database["application_users"]
        user = await users.find_one({"email": "0@example.com"})
        assert user is not None
        await users.insert_one({**user, "_id": str(uuid4()), "applicationId": former["uuid"]})
    with capture_logs() as logs:
        async with new_harness(**CHEAP) as again:
            await again.migrate(MIGRATIONS)
            await again.deliver(sign_in_with_email(former["apiKey"], "0@example.com"))
    assert "users not moved: address registered twice" in {entry["event"] for entry in logs}


async def test_application_that_an_old_instance_adds_meanwhile_is_upgraded_when_used(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    await accounts.deliver(sign_up(application["apiKey"]))
    await make_former(accounts, application)
    await accounts.deliver(sign_in_with_email(application["apiKey"]))
    assert await accounts.database["applications"].count_documents({"keyHash": None}) == 0


async def test_application_that_an_old_instance_adds_meanwhile_is_deleted_with_its_owner(
    accounts: ServiceHarness,
) -> None:
    owner = await new_owner(accounts)
    key_id = str(uuid4())
    await accounts.database["applications"].insert_one(
        {
            "_id": key_id,
            "ownerId": owner["uuid"],
            "name": "An app",
            "passwordless": False,
            "createdAt": accounts.now,
            "endsAt": accounts.now,
            "version": 1,
        }
    )
    await accounts.deliver(delete_owner(owner))
    await follow_up(accounts)
    assert (await document_counts(accounts))["applications"] == 0
