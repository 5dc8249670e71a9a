import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest

from services.auth.accounts.models import DELETION_TYPE, OWNER_TOKEN_TYPE
from services.auth.application_users.models import TOKEN_TYPE
from shared.ids import new_message_id
from shared.messages import Caller
from shared.messages.auth.signing_keys import RotateSigningKeys
from shared.messages.mailer.mails import SendMail
from tests.auth.accounts.flows import (
    CHEAP,
    OTHER_PASSWORD,
    OWNER,
    PASSWORD,
    UNKNOWN_ID,
    create_application,
    delete_owner,
    document_counts,
    follow_up,
    get_owner,
    log_in_owner,
    new_application,
    new_owner,
    new_user,
    register_owner,
    sign_up,
    update_owner,
)
from tests.auth.flows import redeliverable, refusal
from tests.service_harness import Refused, ServiceHarness

NONE_DELETED = {"affectedRows": 0, "insertId": 0, "warningStatus": 0}
ONE_DELETED = {**NONE_DELETED, "affectedRows": 1}
WRONG_CREDENTIALS = ("unauthenticated", "wrong_credentials")
HOME, STRANGER = Caller(client_ip="192.0.2.7"), Caller(client_ip="198.51.100.7")


async def test_registered_owner_is_returned(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    view = {name: OWNER[name] for name in ("firstname", "lastname", "email")} | {"uuid": str(UUID(owner["uuid"]))}
    assert owner == {**view, "deletion_token": owner["deletion_token"]}
    assert await accounts.deliver(get_owner(owner["uuid"])) == view


async def test_owner_is_stored_without_readable_password(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts, email="Ada@Example.COM")
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


async def test_second_delivery_of_register_owner_returns_the_same_owner(accounts: ServiceHarness) -> None:
    delivery = redeliverable(accounts, register_owner())
    first = await accounts.deliver(register_owner(), **delivery)
    assert await accounts.deliver(register_owner(), **delivery) == first
    assert (await document_counts(accounts))["owners"] == 1


async def test_one_of_concurrent_registrations_of_an_address_succeeds(accounts: ServiceHarness) -> None:
    outcomes = await asyncio.gather(*(accounts.deliver(register_owner()) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert {(each.kind, each.code) for each in refused} == {("conflict", "email_taken")}


@pytest.mark.parametrize(
    ("field", "value"),
    [("email", "nobody"), ("email", '{"$gt": ""}'), ("password", "seven77"), ("password", "1234567890")],
)
async def test_invalid_field_is_named(accounts: ServiceHarness, field: str, value: str) -> None:
    with pytest.raises(Refused) as refused:
        await accounts.deliver(register_owner(**{field: value}))
    assert (refused.value.kind, refused.value.code) == ("validation_failed", "validation_failed")
    assert [error["path"] for error in refused.value.meta["errors"]] == [field]
    assert value not in str(refused.value)
    assert (await document_counts(accounts))["owners"] == 0


async def test_owner_logs_in(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    logged_in = await accounts.deliver(log_in_owner("ADA@example.com"))
    assert logged_in == {**owner, "token": logged_in["token"]}
    assert jwt.get_unverified_header(logged_in["token"])["typ"] == OWNER_TOKEN_TYPE
    assert await accounts.deliver(delete_owner(logged_in)) == ONE_DELETED


async def test_wrong_password_and_unknown_address_are_refused_alike(accounts: ServiceHarness) -> None:
    await new_owner(accounts)
    for command in (
        log_in_owner(password="wrong"),
        log_in_owner(password=""),
        log_in_owner(password='{"$gt": ""}'),
        log_in_owner("nobody@example.com"),
    ):
        assert await refusal(accounts, command) == WRONG_CREDENTIALS


async def test_known_and_unknown_addresses_get_10_wrong_passwords(
    accounts: ServiceHarness,
) -> None:
    await new_owner(accounts)
    for email in (OWNER["email"], "nobody@example.com"):
        for _ in range(10):
            assert await refusal(accounts, log_in_owner(email, "wrong")) == WRONG_CREDENTIALS
        for password in ("wrong", PASSWORD):
            with pytest.raises(Refused) as refused:
                await accounts.deliver(log_in_owner(email, password))
            assert (refused.value.kind, refused.value.code) == ("throttled", "throttled")
            assert 0 < refused.value.meta["retry_after"] <= 15 * 60
    accounts.now += timedelta(minutes=15)
    await accounts.deliver(log_in_owner())
    assert await refusal(accounts, log_in_owner("nobody@example.com")) == WRONG_CREDENTIALS


async def test_right_passwords_are_not_counted(accounts: ServiceHarness) -> None:
    await new_owner(accounts)
    for _ in range(11):
        await accounts.deliver(log_in_owner())


async def test_network_that_has_logged_in_has_its_own_quota(accounts: ServiceHarness) -> None:
    await new_owner(accounts)
    await accounts.deliver(log_in_owner(), caller=HOME)
    for _ in range(10):
        assert await refusal(accounts, log_in_owner(password="wrong"), caller=STRANGER) == WRONG_CREDENTIALS
    assert await refusal(accounts, log_in_owner(), caller=STRANGER) == ("throttled", "throttled")
    await accounts.deliver(log_in_owner(), caller=HOME)
    await accounts.deliver(log_in_owner(), caller=Caller(client_ip="192.0.2.200"))


async def test_wrong_password_delivered_twice_is_counted_once(accounts: ServiceHarness) -> None:
    await new_owner(accounts)
    command = log_in_owner(password="wrong")
    delivery = redeliverable(accounts, command)
    for _ in range(12):
        assert await refusal(accounts, command, **delivery) == WRONG_CREDENTIALS
    await accounts.deliver(log_in_owner())


async def test_password_is_rehashed_at_login_after_a_change_of_parameters(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with new_harness(**CHEAP) as before:
        owner = await new_owner(before)
    async with new_harness(**{**CHEAP, "password_passes": 2}) as after:
        await after.deliver(log_in_owner())
        document = await after.database["owners"].find_one({})
        assert ",t=2," in document["passwordHash"]
        assert document["generation"] == 1
        await after.deliver(log_in_owner())
        assert (await after.database["owners"].find_one({}))["version"] == document["version"]
        assert await after.deliver(delete_owner(owner)) == ONE_DELETED


async def test_update_owner_changes_all_and_invalidates_deletion_tokens(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    changes = {"firstname": "A", "lastname": "King", "email": "king@example.com", "password": OTHER_PASSWORD}
    changes["current_password"] = PASSWORD

    assert await accounts.deliver(update_owner(owner["uuid"], **changes)) == {"status": 202, "affectedRows": 1}

    view = {"firstname": "A", "lastname": "King", "email": "king@example.com", "uuid": owner["uuid"]}
    assert await accounts.deliver(get_owner(owner["uuid"])) == view
    assert await refusal(accounts, log_in_owner()) == WRONG_CREDENTIALS
    assert await accounts.deliver(delete_owner(owner)) == NONE_DELETED
    logged_in = await accounts.deliver(log_in_owner("king@example.com", OTHER_PASSWORD))
    assert await accounts.deliver(delete_owner(logged_in)) == ONE_DELETED


async def test_uuid_alone_changes_no_owner(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    other = await new_owner(accounts, email="other@example.com")
    others_token = (await accounts.deliver(log_in_owner("other@example.com")))["token"]
    own_token = (await accounts.deliver(log_in_owner()))["token"]
    _, user_token = await new_user(accounts, (await new_application(accounts, email="x@example.com"))["apiKey"])
    stolen = {"email": "thief@example.com", "firstname": "T"}
    for credential, code in (
        ({"password": OTHER_PASSWORD}, "wrong_credentials"),
        ({"password": OTHER_PASSWORD, "current_password": "wrong"}, "wrong_credentials"),
        ({"password": OTHER_PASSWORD, "owner_token": others_token}, "wrong_credentials"),
        # A token does not replace the current password.
        ({"password": OTHER_PASSWORD, "owner_token": own_token}, "wrong_credentials"),
        ({"password": None}, "validation_failed"),
        ({"password": None, "owner_token": others_token}, "not_logged_in"),
        ({"password": None, "owner_token": user_token}, "not_logged_in"),
        ({"password": None, "owner_token": owner["deletion_token"]}, "not_logged_in"),
        ({"password": None, "owner_token": "x"}, "not_logged_in"),
        ({"password": None, "owner_token": ""}, "not_logged_in"),
    ):
        assert (await refusal(accounts, update_owner(owner["uuid"], **stolen, **credential)))[1] == code
    view = {name: owner[name] for name in ("firstname", "lastname", "email", "uuid")}
    assert await accounts.deliver(get_owner(owner["uuid"])) == view
    assert other["uuid"] != owner["uuid"]


@pytest.mark.parametrize("credential", ["token", "password", "current_password"])
async def test_each_credential_of_the_owner_permits_an_update(accounts: ServiceHarness, credential: str) -> None:
    owner = await new_owner(accounts)
    token = (await accounts.deliver(log_in_owner()))["token"]
    fields = {
        "token": {"password": None, "owner_token": token},
        "password": {"password": PASSWORD},
        "current_password": {"password": None, "current_password": PASSWORD},
    }
    await accounts.deliver(update_owner(owner["uuid"], firstname="A", **fields[credential]))
    assert (await accounts.deliver(get_owner(owner["uuid"])))["firstname"] == "A"


async def test_owner_token_ends_after_an_hour_and_with_the_password(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    token = (await accounts.deliver(log_in_owner()))["token"]
    by_token = update_owner(owner["uuid"], password=None, owner_token=token)
    accounts.now += timedelta(minutes=59, seconds=59)
    await accounts.deliver(by_token)
    accounts.now += timedelta(seconds=1)
    assert await refusal(accounts, by_token) == ("unauthenticated", "not_logged_in")
    token = (await accounts.deliver(log_in_owner()))["token"]
    await accounts.deliver(update_owner(owner["uuid"], password=OTHER_PASSWORD, current_password=PASSWORD))
    by_token = update_owner(owner["uuid"], password=None, owner_token=token)
    assert await refusal(accounts, by_token) == ("unauthenticated", "not_logged_in")


async def test_old_clients_update_an_owner_by_uuid(old_accounts: ServiceHarness) -> None:
    owner = await new_owner(old_accounts)
    await old_accounts.deliver(update_owner(owner["uuid"], email="new@example.com", password="bond007"))
    await old_accounts.deliver(log_in_owner("new@example.com", "bond007"))
    command = update_owner(owner["uuid"], password=None)
    assert await refusal(old_accounts, command) == ("validation_failed", "validation_failed")


async def test_new_password_and_address_of_an_owner_are_mailed_to_the_old_address(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    accounts.clear()
    changes = {"email": "king@example.com", "password": OTHER_PASSWORD, "current_password": PASSWORD}
    await accounts.deliver(update_owner(owner["uuid"], **changes))
    mails = [each for each in accounts.published if isinstance(each, SendMail)]
    assert [mail.template for mail in mails] == ["password-changed", "address-changed"]
    assert {accounts.sealer.unseal_secret("mailer", mail.to) for mail in mails} == {OWNER["email"]}


async def test_update_with_the_same_password_keeps_deletion_tokens_valid(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    await accounts.deliver(update_owner(owner["uuid"], firstname="A"))
    assert await accounts.deliver(delete_owner(owner)) == ONE_DELETED


async def test_update_to_a_taken_address_is_refused(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    await new_owner(accounts, email="other@example.com")
    command = update_owner(owner["uuid"], email="other@example.com")
    assert await refusal(accounts, command) == ("conflict", "email_taken")


async def test_one_of_concurrent_updates_to_an_address_succeeds(accounts: ServiceHarness) -> None:
    owners = [await new_owner(accounts, email=f"{n}@example.com") for n in range(4)]
    commands = (update_owner(owner["uuid"], email="wanted@example.com") for owner in owners)
    outcomes = await asyncio.gather(*map(accounts.deliver, commands), return_exceptions=True)
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
    assert {each.code for each in outcomes if isinstance(each, Refused)} == {"email_taken"}


@pytest.mark.parametrize("uuid", ["", "no uuid", '{"$gt": ""}', "$where"])
async def test_invalid_uuid_is_refused(accounts: ServiceHarness, uuid: str) -> None:
    owner = await new_owner(accounts)
    for command in (get_owner(uuid), update_owner(uuid), create_application(uuid), delete_owner(owner, uuid=uuid)):
        assert await refusal(accounts, command) == ("validation_failed", "validation_failed")


async def test_unknown_owner_is_not_found(accounts: ServiceHarness) -> None:
    for command in (get_owner(UNKNOWN_ID), update_owner(UNKNOWN_ID), create_application(UNKNOWN_ID)):
        assert await refusal(accounts, command) == ("not_found", "owner_not_found")


async def test_deletion_token_has_its_own_type_and_does_not_expire(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    assert jwt.get_unverified_header(owner["deletion_token"])["typ"] == "deletion+jwt"
    assert "exp" not in jwt.decode(owner["deletion_token"], options={"verify_signature": False})
    accounts.now += timedelta(days=3650)
    assert await accounts.deliver(delete_owner(owner)) == ONE_DELETED


async def test_deletion_token_survives_a_rotation_of_signing_keys(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    await accounts.deliver(RotateSigningKeys(emergency=True))
    assert (await accounts.deliver(log_in_owner()))["deletion_token"] == owner["deletion_token"]
    assert await accounts.deliver(delete_owner(owner)) == ONE_DELETED


async def test_deletion_token_works_while_its_sealing_key_is_held(new_harness: Callable[..., ServiceHarness]) -> None:
    old, new = {"old": bytes(range(32))}, {"new": bytes(32)}
    async with new_harness(old, **CHEAP) as before:
        owner = await new_owner(before)
    async with new_harness({**new, **old}, **CHEAP) as after:
        assert (await after.deliver(log_in_owner()))["deletion_token"] != owner["deletion_token"]
        assert await after.deliver(delete_owner(owner)) == ONE_DELETED


async def test_invalid_deletion_token_deletes_nothing(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    other = await new_owner(accounts, email="other@example.com")
    application = await accounts.deliver(create_application(owner["uuid"]))
    _, user_token = await new_user(accounts, application["apiKey"])
    signer: Any = accounts.context.signer
    claims = jwt.decode(owner["deletion_token"], options={"verify_signature": False})
    now = int(accounts.now.timestamp())
    signed = {**claims, "jti": "t", "iat": now, "exp": now + 60}
    other_key, wrong_type = signer.sign(signed, typ=DELETION_TYPE), signer.sign(signed, typ=TOKEN_TYPE)
    unsigned = jwt.encode(claims, None, "none", {"typ": DELETION_TYPE})
    public = jwt.encode(claims, "x" * 32, "HS256", {"kid": "test", "typ": DELETION_TYPE})
    head, body, _ = owner["deletion_token"].split(".")
    forged = (other_key, wrong_type, unsigned, public, f"{head}.{body}.")

    for token in ("", "x", '{"$gt": ""}', other["deletion_token"], user_token, *forged, "é"):
        assert await accounts.deliver(delete_owner(owner, deletion_token=token)) == NONE_DELETED
    assert await accounts.deliver(delete_owner(owner, uuid=UNKNOWN_ID)) == NONE_DELETED
    assert (await document_counts(accounts))["owners"] == 2


async def test_delete_owner_deletes_applications_and_their_users(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    other = await new_application(accounts, email="other@example.com")
    await accounts.deliver(sign_up(other["apiKey"]))
    for n in range(3):
        application = await accounts.deliver(create_application(owner["uuid"], f"App {n}"))
        for m in range(2):
            await accounts.deliver(sign_up(application["apiKey"], email=f"{m}@example.com"))
    accounts.clear()

    assert await accounts.deliver(delete_owner(owner)) == ONE_DELETED
    assert (await document_counts(accounts))["applications"] == 1
    await follow_up(accounts)

    assert await document_counts(accounts) == {"owners": 1, "applications": 1, "application_users": 1}
    assert await accounts.deliver(delete_owner(owner)) == NONE_DELETED


async def test_second_delivery_of_delete_owner_returns_the_same_reply(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    delivery = redeliverable(accounts, delete_owner(owner))
    for _ in range(2):
        assert await accounts.deliver(delete_owner(owner), **delivery) == ONE_DELETED


async def test_no_application_outlives_an_owner_deleted_concurrently(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    commands = [create_application(owner["uuid"], f"App {n}") for n in range(20)]
    commands.insert(10, delete_owner(owner))

    await asyncio.gather(
        *(accounts.deliver(command, id=new_message_id()) for command in commands), return_exceptions=True
    )
    await follow_up(accounts)

    assert await document_counts(accounts) == {"owners": 0, "applications": 0, "application_users": 0}


async def test_owner_with_many_applications_is_deleted_in_batches(
    accounts: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.accounts.handlers.MAX_REMOVED", 2)
    owner = await new_owner(accounts)
    for n in range(5):
        application = await accounts.deliver(create_application(owner["uuid"], f"App {n}"))
        await accounts.deliver(sign_up(application["apiKey"]))
    accounts.clear()

    await accounts.deliver(delete_owner(owner))
    await follow_up(accounts)

    assert await document_counts(accounts) == {"owners": 0, "applications": 0, "application_users": 0}


async def test_old_clients_get_the_deletion_token_with_the_owner(old_accounts: ServiceHarness) -> None:
    owner = await new_owner(old_accounts, password="bond007")
    for _ in range(2):
        assert await old_accounts.deliver(get_owner(owner["uuid"])) == owner
    assert await old_accounts.deliver(delete_owner(owner)) == ONE_DELETED
