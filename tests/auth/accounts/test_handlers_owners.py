import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest

from services.auth.application_users.models import TOKEN_TYPE
from shared.ids import new_message_id
from shared.messages import Caller
from tests.auth.accounts.flows import (
    CHEAP,
    NOBODYS_ID,
    OTHER_PASSWORD,
    OWNER,
    PASSWORD,
    an_application,
    an_owner,
    create_application,
    delete_owner,
    follow_up,
    get_owner,
    left,
    log_in_owner,
    register_owner,
    sign_up,
    signed_in,
    update_owner,
)
from tests.auth.flows import one_delivery, refusal
from tests.service_harness import Refused, ServiceHarness

NONE_DELETED = {"affectedRows": 0, "insertId": 0, "warningStatus": 0}
ONE_DELETED = {**NONE_DELETED, "affectedRows": 1}
WRONG = ("unauthenticated", "wrong_credentials")
HOME, AWAY = Caller(client_ip="192.0.2.7"), Caller(client_ip="198.51.100.7")


async def test_an_owner_is_made_and_found(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    shown = {name: OWNER[name] for name in ("firstname", "lastname", "email")} | {"uuid": str(UUID(owner["uuid"]))}
    assert owner == {**shown, "deletion_token": owner["deletion_token"]}
    assert await accounts.deliver(get_owner(owner["uuid"])) == shown


async def test_an_owner_is_kept_without_a_readable_password(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts, email="Ada@Example.COM")
    document = await accounts.database["owners"].find_one({})
    assert document["_id"] == owner["uuid"]
    assert document["email"] == owner["email"] == "ada@example.com"
    assert document["passwordHash"].startswith("$argon2id$")
    assert document.keys() == {
        *("_id", "firstName", "lastName", "email", "passwordHash", "generation", "createdAt", "updatedAt", "version")
    }
    inbox = str(await accounts.database["inbox"].find().to_list())
    assert PASSWORD not in f"{document}{inbox}"
    assert owner["deletion_token"] not in inbox


async def test_an_owner_delivered_twice_is_made_once_and_answered_alike(accounts: ServiceHarness) -> None:
    delivery = one_delivery(accounts, register_owner())
    first = await accounts.deliver(register_owner(), **delivery)
    assert await accounts.deliver(register_owner(), **delivery) == first
    assert (await left(accounts))["owners"] == 1


async def test_of_many_owners_with_one_address_one_is_made(accounts: ServiceHarness) -> None:
    outcomes = await asyncio.gather(*(accounts.deliver(register_owner()) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert {(each.kind, each.code) for each in refused} == {("conflict", "email_taken")}


@pytest.mark.parametrize(
    ("field", "value"),
    [("email", "nobody"), ("email", '{"$gt": ""}'), ("password", "seven77"), ("password", "1234567890")],
)
async def test_a_wrong_field_is_named(accounts: ServiceHarness, field: str, value: str) -> None:
    with pytest.raises(Refused) as refused:
        await accounts.deliver(register_owner(**{field: value}))
    assert (refused.value.kind, refused.value.code) == ("validation_failed", "validation_failed")
    assert [error["path"] for error in refused.value.meta["errors"]] == [field]
    assert value not in str(refused.value)
    assert (await left(accounts))["owners"] == 0


async def test_an_owner_logs_in(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    answer = await accounts.deliver(log_in_owner("ADA@example.com"))
    assert {**answer, "deletion_token": ""} == {**owner, "deletion_token": ""}
    assert await accounts.deliver(delete_owner(answer)) == ONE_DELETED


async def test_a_wrong_password_and_an_unknown_address_are_refused_alike(accounts: ServiceHarness) -> None:
    await an_owner(accounts)
    for order in (
        log_in_owner(password="wrong"),
        log_in_owner(password=""),
        log_in_owner(password='{"$gt": ""}'),
        log_in_owner("nobody@example.com"),
    ):
        assert await refusal(accounts, order) == WRONG


async def test_ten_wrong_passwords_in_fifteen_minutes_are_enough_for_known_and_unknown_addresses(
    accounts: ServiceHarness,
) -> None:
    await an_owner(accounts)
    for email in (OWNER["email"], "nobody@example.com"):
        for _ in range(10):
            assert await refusal(accounts, log_in_owner(email, "wrong")) == WRONG
        for password in ("wrong", PASSWORD):
            with pytest.raises(Refused) as refused:
                await accounts.deliver(log_in_owner(email, password))
            assert (refused.value.kind, refused.value.code) == ("throttled", "throttled")
            assert 0 < refused.value.meta["retry_after"] <= 15 * 60
    accounts.now += timedelta(minutes=15)
    await accounts.deliver(log_in_owner())
    assert await refusal(accounts, log_in_owner("nobody@example.com")) == WRONG


async def test_right_passwords_are_not_counted(accounts: ServiceHarness) -> None:
    await an_owner(accounts)
    for _ in range(11):
        await accounts.deliver(log_in_owner())


async def test_a_stranger_does_not_lock_out_who_has_logged_in_from_there_before(accounts: ServiceHarness) -> None:
    await an_owner(accounts)
    await accounts.deliver(log_in_owner(), caller=HOME)
    for _ in range(10):
        assert await refusal(accounts, log_in_owner(password="wrong"), caller=AWAY) == WRONG
    assert await refusal(accounts, log_in_owner(), caller=AWAY) == ("throttled", "throttled")
    await accounts.deliver(log_in_owner(), caller=HOME)
    await accounts.deliver(log_in_owner(), caller=Caller(client_ip="192.0.2.200"))


async def test_a_wrong_password_delivered_twice_counts_once(accounts: ServiceHarness) -> None:
    await an_owner(accounts)
    order = log_in_owner(password="wrong")
    delivery = one_delivery(accounts, order)
    for _ in range(12):
        assert await refusal(accounts, order, **delivery) == WRONG
    await accounts.deliver(log_in_owner())


async def test_a_password_is_hashed_again_when_the_parameters_have_grown(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with new_harness(**CHEAP) as before:
        owner = await an_owner(before)
    async with new_harness(**{**CHEAP, "password_passes": 2}) as after:
        await after.deliver(log_in_owner())
        document = await after.database["owners"].find_one({})
        assert ",t=2," in document["passwordHash"]
        assert document["generation"] == 1
        await after.deliver(log_in_owner())
        assert (await after.database["owners"].find_one({}))["version"] == document["version"]
        assert await after.deliver(delete_owner(owner)) == ONE_DELETED


async def test_an_update_changes_all_and_another_password_ends_deletion_tokens(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    changes = {"firstname": "A", "lastname": "King", "email": "king@example.com", "password": OTHER_PASSWORD}

    assert await accounts.deliver(update_owner(owner["uuid"], **changes)) == {"status": 202, "affectedRows": 1}

    shown = {"firstname": "A", "lastname": "King", "email": "king@example.com", "uuid": owner["uuid"]}
    assert await accounts.deliver(get_owner(owner["uuid"])) == shown
    assert await refusal(accounts, log_in_owner()) == WRONG
    assert await accounts.deliver(delete_owner(owner)) == NONE_DELETED
    answer = await accounts.deliver(log_in_owner("king@example.com", OTHER_PASSWORD))
    assert await accounts.deliver(delete_owner(answer)) == ONE_DELETED


async def test_an_update_with_the_same_password_leaves_deletion_tokens_alone(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    await accounts.deliver(update_owner(owner["uuid"], firstname="A"))
    assert await accounts.deliver(delete_owner(owner)) == ONE_DELETED


async def test_an_update_to_anothers_address_is_refused(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    await an_owner(accounts, email="other@example.com")
    order = update_owner(owner["uuid"], email="other@example.com")
    assert await refusal(accounts, order) == ("conflict", "email_taken")


async def test_of_two_owners_who_want_one_address_at_once_one_gets_it(accounts: ServiceHarness) -> None:
    owners = [await an_owner(accounts, email=f"{n}@example.com") for n in range(4)]
    orders = (update_owner(owner["uuid"], email="wanted@example.com") for owner in owners)
    outcomes = await asyncio.gather(*map(accounts.deliver, orders), return_exceptions=True)
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
    assert {each.code for each in outcomes if isinstance(each, Refused)} == {"email_taken"}


@pytest.mark.parametrize("uuid", ["", "no uuid", '{"$gt": ""}', "$where"])
async def test_what_is_no_uuid_is_refused_before_any_look_up(accounts: ServiceHarness, uuid: str) -> None:
    owner = await an_owner(accounts)
    for order in (get_owner(uuid), update_owner(uuid), create_application(uuid), delete_owner(owner, uuid=uuid)):
        assert await refusal(accounts, order) == ("validation_failed", "validation_failed")


async def test_nobody_is_not_found(accounts: ServiceHarness) -> None:
    for order in (get_owner(NOBODYS_ID), update_owner(NOBODYS_ID), create_application(NOBODYS_ID)):
        assert await refusal(accounts, order) == ("not_found", "owner_not_found")


async def test_deletion_tokens_are_of_their_own_type_and_live_for_a_day(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    assert jwt.get_unverified_header(owner["deletion_token"])["typ"] == "deletion+jwt"
    accounts.now += timedelta(hours=24)
    assert await accounts.deliver(delete_owner(owner)) == NONE_DELETED
    assert (await left(accounts))["owners"] == 1


async def test_a_token_that_is_not_the_owners_deletes_nothing(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    other = await an_owner(accounts, email="other@example.com")
    application = await accounts.deliver(create_application(owner["uuid"]))
    _, users_token = await signed_in(accounts, application["apiKey"])
    signer: Any = accounts.context.signer
    claims = jwt.decode(owner["deletion_token"], options={"verify_signature": False})
    wrong_type = signer.sign({key: claims[key] for key in claims if key != "iss"}, typ=TOKEN_TYPE)
    head, body, _ = owner["deletion_token"].split(".")

    for token in ("", "x", '{"$gt": ""}', other["deletion_token"], users_token, wrong_type, f"{head}.{body}."):
        assert await accounts.deliver(delete_owner(owner, deletion_token=token)) == NONE_DELETED
    assert await accounts.deliver(delete_owner(owner, uuid=NOBODYS_ID)) == NONE_DELETED
    assert (await left(accounts))["owners"] == 2


async def test_an_owner_goes_with_all_applications_and_their_users(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    kept = await an_application(accounts, email="other@example.com")
    await accounts.deliver(sign_up(kept["apiKey"]))
    for n in range(3):
        application = await accounts.deliver(create_application(owner["uuid"], f"App {n}"))
        for m in range(2):
            await accounts.deliver(sign_up(application["apiKey"], email=f"{m}@example.com"))
    accounts.clear()

    assert await accounts.deliver(delete_owner(owner)) == ONE_DELETED
    assert (await left(accounts))["applications"] == 1
    await follow_up(accounts)

    assert await left(accounts) == {"owners": 1, "applications": 1, "application_users": 1}
    assert await accounts.deliver(delete_owner(owner)) == NONE_DELETED


async def test_an_owner_deleted_by_two_deliveries_is_deleted_once(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    delivery = one_delivery(accounts, delete_owner(owner))
    for _ in range(2):
        assert await accounts.deliver(delete_owner(owner), **delivery) == ONE_DELETED


async def test_no_application_outlives_an_owner_who_is_deleted_while_they_are_made(accounts: ServiceHarness) -> None:
    owner = await an_owner(accounts)
    orders = [create_application(owner["uuid"], f"App {n}") for n in range(20)]
    orders.insert(10, delete_owner(owner))

    await asyncio.gather(*(accounts.deliver(order, id=new_message_id()) for order in orders), return_exceptions=True)
    await follow_up(accounts)

    assert await left(accounts) == {"owners": 0, "applications": 0, "application_users": 0}


async def test_an_owner_with_more_applications_than_one_message_deletes_leaves_none(
    accounts: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.accounts.handlers.BATCH", 2)
    owner = await an_owner(accounts)
    for n in range(5):
        application = await accounts.deliver(create_application(owner["uuid"], f"App {n}"))
        await accounts.deliver(sign_up(application["apiKey"]))
    accounts.clear()

    await accounts.deliver(delete_owner(owner))
    await follow_up(accounts)

    assert await left(accounts) == {"owners": 0, "applications": 0, "application_users": 0}


async def test_old_clients_get_the_deletion_token_by_the_id(old_accounts: ServiceHarness) -> None:
    owner = await an_owner(old_accounts, password="bond007")
    answer = await old_accounts.deliver(get_owner(owner["uuid"]))
    assert await old_accounts.deliver(delete_owner(answer)) == ONE_DELETED
