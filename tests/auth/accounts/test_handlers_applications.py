import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from services.auth.accounts.api_keys import api_key
from shared.ids import new_message_id
from tests.auth.accounts.flows import (
    CHEAP,
    PASSWORD,
    UNKNOWN_ID,
    UNKNOWN_KEY,
    check_sign_in,
    create_application,
    delete_application,
    document_counts,
    follow_up,
    log_in_owner,
    new_application,
    new_owner,
    new_user,
    sign_in,
    sign_in_with_email,
    sign_up,
)
from tests.auth.flows import redeliverable, refusal
from tests.service_harness import ServiceHarness

MALFORMED = ["", "x", '{"$gt": ""}', UNKNOWN_ID, "2YP47A5-YEWM1FG-MET9XB1-N6DN56M", "0" * 31]


async def test_application_is_created_for_a_year(accounts: ServiceHarness) -> None:
    accounts.now = datetime(2026, 2, 5, 11, 38, 56, 218_000, UTC)
    application = await new_application(accounts)
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
    assert document.keys() == {
        "_id",
        "ownerId",
        "keyHash",
        "name",
        "passwordless",
        "verifiedOnly",
        "createdAt",
        "endsAt",
        "version",
    }
    stored = f"{await accounts.database['inbox'].find().to_list()}{document}"
    for secret in (application["apiKey"], application["uuid"]):
        assert secret not in stored


async def test_application_name_is_unique_per_owner(accounts: ServiceHarness) -> None:
    owner, other = await new_owner(accounts), await new_owner(accounts, email="other@example.com")
    await accounts.deliver(create_application(owner["uuid"]))
    assert await refusal(accounts, create_application(owner["uuid"])) == ("conflict", "appname_taken")
    await accounts.deliver(create_application(owner["uuid"], "an app"))
    await accounts.deliver(create_application(other["uuid"]))


async def test_second_delivery_of_create_application_returns_the_same(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    command = create_application(owner["uuid"])
    delivery = redeliverable(accounts, command)
    assert await accounts.deliver(command, **delivery) == await accounts.deliver(command, **delivery)
    assert (await document_counts(accounts))["applications"] == 1


async def test_delete_application_deletes_only_its_users(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    other = await new_application(accounts, email="other@example.com")
    _, token = await new_user(accounts, application["apiKey"])
    await accounts.deliver(sign_up(other["apiKey"]))

    command = delete_application(application["apiKey"])
    delivery = redeliverable(accounts, command)
    for _ in range(2):
        assert await accounts.deliver(command, **delivery) == {
            "affectedRows": 1,
            "message": "All auth users of this application are deleted too",
        }
    # Nobody can log in from now on, although the users' documents still exist.
    assert await refusal(accounts, check_sign_in(token)) == ("unauthenticated", "not_logged_in")
    for command in (sign_up(application["apiKey"]), sign_in_with_email(application["apiKey"])):
        assert await refusal(accounts, command) == ("not_found", "application_not_found")
    await follow_up(accounts)

    assert await document_counts(accounts) == {"owners": 2, "applications": 1, "application_users": 1}


async def test_deletion_of_an_unknown_application_deletes_nothing(accounts: ServiceHarness) -> None:
    nothing = {"affectedRows": 0, "message": "nothing to delete"}
    assert await accounts.deliver(delete_application(UNKNOWN_KEY)) == nothing


async def test_api_key_alone_deletes_no_application(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    key = application["apiKey"]
    await new_owner(accounts, email="other@example.com")
    _, user_token = await new_user(accounts, key)
    others_token = (await accounts.deliver(log_in_owner("other@example.com")))["token"]
    for credential, code in (
        ({"password": None}, "not_logged_in"),
        ({"password": None, "owner_token": user_token}, "not_logged_in"),
        ({"password": None, "owner_token": others_token}, "not_logged_in"),
        ({"password": "wrong"}, "wrong_credentials"),
        ({"password": "wrong", "owner_token": others_token}, "wrong_credentials"),
    ):
        assert await refusal(accounts, delete_application(key, **credential)) == ("unauthenticated", code)
    assert (await document_counts(accounts))["applications"] == 1


@pytest.mark.parametrize("credential", ["owner_token", "password", "current_password"])
async def test_each_credential_of_the_owner_permits_the_deletion(accounts: ServiceHarness, credential: str) -> None:
    key = (await new_application(accounts))["apiKey"]
    secret = (await accounts.deliver(log_in_owner()))["token"] if credential == "owner_token" else PASSWORD
    command = delete_application(key, **{"password": None, credential: secret})
    assert (await accounts.deliver(command))["affectedRows"] == 1


async def test_old_clients_delete_an_application_by_its_key(old_accounts: ServiceHarness) -> None:
    key = (await new_application(old_accounts))["apiKey"]
    assert (await old_accounts.deliver(delete_application(key, password=None)))["affectedRows"] == 1


async def test_api_keys_outlive_a_rotation_of_sealing_keys(new_harness: Callable[..., ServiceHarness]) -> None:
    old, new = {"old": bytes(range(32))}, {"new": bytes(32)}
    async with new_harness(old, **CHEAP) as before:
        key = (await new_application(before))["apiKey"]
        await before.deliver(sign_up(key))
    async with new_harness({**new, **old}, **CHEAP) as both:
        await both.deliver(sign_in_with_email(key))
        [hashed] = await both.database["applications"].distinct("keyHash")
        assert hashed.startswith("new.")
        # auth does not start without the key that sealed its signing keys.
        await both.database["signing_keys"].delete_many({})
    async with new_harness(new, **CHEAP) as after:
        await after.deliver(sign_in_with_email(key))


async def test_start_without_the_sealing_key_of_an_api_key_logs_an_error(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with new_harness({"old": bytes(range(32))}, **CHEAP) as before:
        await new_application(before)
        await before.database["signing_keys"].delete_many({})
    with capture_logs() as logs:
        async with new_harness({"new": bytes(32)}, **CHEAP):
            pass
    assert [entry["count"] for entry in logs if entry["event"].startswith("API keys not found")] == [1]


@pytest.mark.parametrize("key", MALFORMED)
async def test_malformed_api_key_is_refused(accounts: ServiceHarness, key: str) -> None:
    await new_application(accounts)
    for command in (delete_application(key), sign_up(key), sign_in(UNKNOWN_ID, key), sign_in_with_email(key)):
        assert await refusal(accounts, command) == ("unauthenticated", "malformed_api_key")


async def test_users_of_a_large_application_are_deleted_in_batches(
    accounts: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.accounts.handlers.MAX_REMOVED", 3)
    application = await new_application(accounts)
    for n in range(7):
        await accounts.deliver(sign_up(application["apiKey"], email=f"{n}@example.com"))
    accounts.clear()

    await accounts.deliver(delete_application(application["apiKey"]))
    [command] = accounts.published
    await accounts.deliver(command)
    assert (await document_counts(accounts))["application_users"] == 4
    await follow_up(accounts)

    assert (await document_counts(accounts))["application_users"] == 0


async def test_no_user_outlives_an_application_deleted_concurrently(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    commands = [sign_up(application["apiKey"], email=f"{n}@example.com") for n in range(20)]
    commands.insert(5, delete_application(application["apiKey"]))

    outcomes = await asyncio.gather(
        *(accounts.deliver(command, id=new_message_id()) for command in commands), return_exceptions=True
    )
    await follow_up(accounts)

    assert await document_counts(accounts) == {"owners": 1, "applications": 0, "application_users": 0}
    assert {getattr(outcome, "code", "done") for outcome in outcomes} <= {"done", "application_not_found"}
