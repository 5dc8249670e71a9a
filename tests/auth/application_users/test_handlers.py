import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import pytest

from services.auth.accounts.api_keys import api_key
from services.auth.accounts.models import DELETION_TYPE
from shared.messages import Caller
from shared.messages.mailer.mails import SendMail
from tests.auth.accounts.flows import (
    CHEAP,
    OTHER_PASSWORD,
    PASSWORD,
    UNKNOWN_ID,
    UNKNOWN_KEY,
    USER,
    check_sign_in,
    delete_application,
    document_counts,
    get_application_user,
    new_application,
    new_user,
    sign_in,
    sign_in_with_email,
    sign_up,
    update_application_user,
)
from tests.auth.flows import log_in, redeliverable, refusal
from tests.service_harness import Refused, ServiceHarness

WRONG_CREDENTIALS = ("unauthenticated", "wrong_credentials")
NOT_LOGGED_IN = ("unauthenticated", "not_logged_in")


async def test_user_signs_up_for_a_year(accounts: ServiceHarness) -> None:
    accounts.now = datetime(2026, 2, 6, 23, 59, tzinfo=UTC)
    application = await new_application(accounts)
    user = await accounts.deliver(sign_up(application["apiKey"], email="J.Bond@example.com"))
    assert user == {
        "apikey": application["apiKey"],
        "uuid": user["uuid"],
        "username": "jbond",
        "email": "j.bond@example.com",
        "creationdate": "2026-02-06",
        "enddate": "2027-02-06",
        "active": True,
    }
    document = await accounts.database["application_users"].find_one({})
    assert document.keys() == {
        *("_id", "applicationId", "username", "email", "passwordHash", "active", "generation", "createdAt"),
        *("updatedAt", "endsAt", "version", "verifiedAt", "locale"),
    }
    inbox = str(await accounts.database["inbox"].find().to_list())
    for secret in (PASSWORD, application["apiKey"]):
        assert secret not in f"{document}{inbox}"


async def test_address_is_unique_per_application(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    other = await new_application(accounts, email="other@example.com")
    commands = [sign_up(application["apiKey"], username=f"{n}") for n in range(6)]
    outcomes = await asyncio.gather(*map(accounts.deliver, commands), return_exceptions=True)
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
    assert {(each.kind, each.code) for each in outcomes if isinstance(each, Refused)} == {("conflict", "email_taken")}
    await accounts.deliver(sign_up(other["apiKey"]))


async def test_second_delivery_of_sign_up_returns_the_same_user(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    delivery = redeliverable(accounts, sign_up(application["apiKey"]))
    first = await accounts.deliver(sign_up(application["apiKey"]), **delivery)
    assert await accounts.deliver(sign_up(application["apiKey"]), **delivery) == first
    assert (await document_counts(accounts))["application_users"] == 1


@pytest.mark.parametrize(("field", "value"), [("email", "nobody"), ("password", "bond007"), ("password", "password1")])
async def test_invalid_field_of_a_sign_up_is_named(accounts: ServiceHarness, field: str, value: str) -> None:
    application = await new_application(accounts)
    with pytest.raises(Refused) as refused:
        await accounts.deliver(sign_up(application["apiKey"], **{field: value}))
    assert [error["path"] for error in refused.value.meta["errors"]] == [field]


async def test_user_signs_in_with_address_and_password(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    user = await accounts.deliver(sign_up(application["apiKey"]))
    view = await accounts.deliver(sign_in_with_email(application["apiKey"], "J.BOND@example.com"))
    assert view == {"auth": True, "token": view["token"], "uuid": user["uuid"]}
    claims = jwt.decode(view["token"], options={"verify_signature": False})
    assert claims["sub"] == user["uuid"]
    assert claims["exp"] - claims["iat"] == 24 * 3600
    assert jwt.get_unverified_header(view["token"])["typ"] == "application+jwt"
    assert await accounts.deliver(check_sign_in(view["token"])) == {"auth": True, "token": view["token"]}
    shown = await accounts.deliver(get_application_user(view["token"]))
    assert shown == {**user, "apikey": api_key(UUID(user["uuid"])), "verified": False}


async def test_nothing_that_a_user_sees_yields_the_key(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    claims = jwt.decode(token, options={"verify_signature": False})
    shown = await accounts.deliver(get_application_user(token))
    known = f"{claims}{shown}{jwt.get_unverified_header(token)}"
    for secret in (application["apiKey"], application["uuid"], application["uuid"].replace("-", "")):
        assert secret not in known
    # Neither the audience nor the shown key opens anything.
    for key in (api_key(UUID(claims["aud"])), shown["apikey"]):
        assert await refusal(accounts, sign_up(key, email="x@example.com")) == ("not_found", "application_not_found")
        assert (await accounts.deliver(delete_application(key)))["affectedRows"] == 0


async def test_wrong_password_address_and_application_are_refused_alike(
    accounts: ServiceHarness,
) -> None:
    application = await new_application(accounts)
    other = await new_application(accounts, email="other@example.com")
    await accounts.deliver(sign_up(application["apiKey"]))
    for command in (
        sign_in_with_email(application["apiKey"], password=OTHER_PASSWORD),
        sign_in_with_email(application["apiKey"], password=""),
        sign_in_with_email(application["apiKey"], "nobody@example.com"),
        sign_in_with_email(other["apiKey"]),
    ):
        assert await refusal(accounts, command) == WRONG_CREDENTIALS


async def test_network_that_has_signed_in_has_its_own_quota(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    key, home = application["apiKey"], Caller(client_ip="2001:db8:1:2::3")
    await accounts.deliver(sign_up(key))
    token = (await accounts.deliver(sign_in_with_email(key), caller=home))["token"]

    for n in range(10):
        stranger = Caller(client_ip=f"198.51.{n}.1")
        assert await refusal(accounts, sign_in_with_email(key, password="wrong"), caller=stranger) == WRONG_CREDENTIALS
    assert await refusal(accounts, sign_in_with_email(key), caller=stranger) == ("throttled", "throttled")

    await accounts.deliver(check_sign_in(token))
    await accounts.deliver(sign_in_with_email(key), caller=Caller(client_ip="2001:db8:1:2:ffff::"))
    for _ in range(10):
        assert await refusal(accounts, sign_in_with_email(key, password="wrong"), caller=home) == WRONG_CREDENTIALS
    assert await refusal(accounts, sign_in_with_email(key), caller=home) == ("throttled", "throttled")


async def test_wrong_passwords_are_counted_per_application(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    other = await new_application(accounts, email="other@example.com")
    await accounts.deliver(sign_up(other["apiKey"]))
    for _ in range(10):
        await refusal(accounts, sign_in_with_email(application["apiKey"]))
    await accounts.deliver(sign_in_with_email(other["apiKey"]))


async def test_sign_in_without_password_needs_a_passwordless_application(accounts: ServiceHarness) -> None:
    with_passwords = await new_application(accounts)
    passwordless = await new_application(accounts, email="other@example.com", passwordless=True)
    users = [await accounts.deliver(sign_up(each["apiKey"])) for each in (with_passwords, passwordless)]

    command = sign_in(users[0]["uuid"], with_passwords["apiKey"])
    assert await refusal(accounts, command) == ("forbidden", "password_required")
    view = await accounts.deliver(sign_in(users[1]["uuid"].upper(), passwordless["apiKey"].lower()))

    assert view == {"auth": True, "token": view["token"]}
    assert (await accounts.deliver(get_application_user(view["token"])))["uuid"] == users[1]["uuid"]
    for uuid in (UNKNOWN_ID, users[0]["uuid"]):
        command = sign_in(uuid, passwordless["apiKey"])
        assert await refusal(accounts, command) == ("not_found", "application_user_not_found")
    for uuid in ("", '{"$gt": ""}'):
        command = sign_in(uuid, passwordless["apiKey"])
        assert await refusal(accounts, command) == ("validation_failed", "validation_failed")


async def test_old_clients_sign_in_without_password_to_any_application(old_accounts: ServiceHarness) -> None:
    application = await new_application(old_accounts)
    user = await old_accounts.deliver(sign_up(application["apiKey"], password="bond007"))
    view = await old_accounts.deliver(sign_in(user["uuid"], application["apiKey"]))
    await old_accounts.deliver(check_sign_in(view["token"]))


@pytest.mark.parametrize("old_clients", [False, True])
async def test_changed_password_is_required_from_then_on(
    new_harness: Callable[..., ServiceHarness],
    old_clients: bool,  # noqa: FBT001
) -> None:
    async with new_harness(**CHEAP, old_clients=old_clients) as harness:
        application = await new_application(harness, passwordless=not old_clients)
        key = application["apiKey"]
        user, token = await new_user(harness, key)
        by_ids = sign_in(user["uuid"], key)
        # The same password is no change.
        await harness.deliver(update_application_user(token, password=PASSWORD, current_password=PASSWORD))
        await harness.deliver(by_ids)
        await harness.deliver(update_application_user(token, password=OTHER_PASSWORD, current_password=PASSWORD))
        assert await refusal(harness, by_ids) == ("forbidden", "password_required")
        await harness.deliver(sign_in_with_email(key, password=OTHER_PASSWORD))
        assert await refusal(harness, by_ids) == ("forbidden", "password_required")


async def test_unknown_application_is_not_found(accounts: ServiceHarness) -> None:
    for command in (sign_up(UNKNOWN_KEY), sign_in(UNKNOWN_ID, UNKNOWN_KEY), sign_in_with_email(UNKNOWN_KEY)):
        assert await refusal(accounts, command) == ("not_found", "application_not_found")


async def test_sign_in_is_refused_after_the_end_dates(accounts: ServiceHarness) -> None:
    application = await new_application(accounts, passwordless=True)
    key = application["apiKey"]
    accounts.now += timedelta(days=1)
    user = await accounts.deliver(sign_up(key))

    accounts.now += timedelta(days=364)
    for command in (sign_up(key, email="new@example.com"), sign_in(user["uuid"], key), sign_in_with_email(key)):
        assert await refusal(accounts, command) == ("forbidden", "application_ended")

    later = accounts.now + timedelta(days=700)
    await accounts.database["applications"].update_one({}, {"$set": {"endsAt": later}})
    token = (await accounts.deliver(sign_in_with_email(key)))["token"]
    await accounts.database["application_users"].update_one({}, {"$set": {"endsAt": accounts.now}})
    for command in (sign_in(user["uuid"], key), sign_in_with_email(key)):
        assert await refusal(accounts, command) == ("forbidden", "application_user_ended")
    assert await refusal(accounts, check_sign_in(token)) == NOT_LOGGED_IN


async def test_deactivation_is_revealed_only_with_the_right_password(accounts: ServiceHarness) -> None:
    application = await new_application(accounts, passwordless=True)
    user, token = await new_user(accounts, application["apiKey"])
    await accounts.deliver(update_application_user(token, active=False))

    for command in (check_sign_in(token), get_application_user(token), update_application_user(token, active=True)):
        assert await refusal(accounts, command) == NOT_LOGGED_IN
    for command in (sign_in_with_email(application["apiKey"]), sign_in(user["uuid"], application["apiKey"])):
        assert await refusal(accounts, command) == ("forbidden", "application_user_not_active")
    assert await refusal(accounts, sign_in_with_email(application["apiKey"], password="wrong")) == WRONG_CREDENTIALS


async def test_update_changes_the_given_properties(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    command = update_application_user(token, username="M", email="M@example.com", current_password=PASSWORD)
    delivery = redeliverable(accounts, command)
    for _ in range(2):
        view = await accounts.deliver(command, **delivery)
        assert view == {"done": True, "username": "M", "email": "m@example.com"}
    shown = await accounts.deliver(get_application_user(token))
    assert (shown["username"], shown["email"]) == ("M", "m@example.com")
    assert (await accounts.database["application_users"].find_one({}))["version"] == 2


async def test_new_password_ends_tokens_of_the_same_second(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    updated = await accounts.deliver(update_application_user(token, password=OTHER_PASSWORD, current_password=PASSWORD))
    await accounts.deliver(check_sign_in(updated["token"]))
    for command in (check_sign_in(token), update_application_user(token, username="x")):
        assert await refusal(accounts, command) == NOT_LOGGED_IN
    assert await refusal(accounts, sign_in_with_email(application["apiKey"])) == WRONG_CREDENTIALS
    view = await accounts.deliver(sign_in_with_email(application["apiKey"], password=OTHER_PASSWORD))
    await accounts.deliver(check_sign_in(view["token"]))


async def test_new_password_needs_the_current_one(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    for credential in ({}, {"current_password": "wrong"}, {"current_password": OTHER_PASSWORD}):
        command = update_application_user(token, password=OTHER_PASSWORD, **credential)
        assert await refusal(accounts, command) == WRONG_CREDENTIALS
    await accounts.deliver(check_sign_in(token))


async def test_token_does_not_open_more_guesses_of_the_password(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    for number in range(10):
        field = ("password", "current_password")[number % 2]
        assert (
            await refusal(accounts, update_application_user(token, **{field: f"a guess, {number}"}))
            == WRONG_CREDENTIALS
        )
    command = update_application_user(token, password=OTHER_PASSWORD, current_password=PASSWORD)
    assert await refusal(accounts, command) == ("throttled", "throttled")


async def test_old_clients_change_the_password_by_token(old_accounts: ServiceHarness) -> None:
    application = await new_application(old_accounts)
    _, token = await new_user(old_accounts, application["apiKey"])
    await old_accounts.deliver(update_application_user(token, password=OTHER_PASSWORD))
    await old_accounts.deliver(sign_in_with_email(application["apiKey"], password=OTHER_PASSWORD))


async def test_another_address_needs_the_current_password(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    accounts.clear()
    for proof, code in (
        ({}, "validation_failed"),
        ({"username": "M", "active": True}, "validation_failed"),
        ({"current_password": "a guess"}, "wrong_credentials"),
        ({"password": "a guess that is long enough"}, "wrong_credentials"),
    ):
        command = update_application_user(token, email="thief@example.com", **proof)
        assert (await refusal(accounts, command))[1] == code
    assert [each for each in accounts.published if isinstance(each, SendMail)] == []
    for address, proof in (
        ("a@example.com", {"password": PASSWORD}),
        ("b@example.com", {"current_password": PASSWORD}),
    ):
        view = await accounts.deliver(update_application_user(token, email=address, **proof))
        assert view["email"] == address


async def test_old_clients_change_the_address_by_token(old_accounts: ServiceHarness) -> None:
    application = await new_application(old_accounts)
    _, token = await new_user(old_accounts, application["apiKey"])
    view = await old_accounts.deliver(update_application_user(token, email="new@example.com"))
    assert view["email"] == "new@example.com"


async def test_new_password_and_address_are_mailed_to_the_old_address(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    accounts.clear()
    changes = {"password": OTHER_PASSWORD, "current_password": PASSWORD, "email": "new@example.com"}
    await accounts.deliver(update_application_user(token, **changes))
    mails = [each for each in accounts.published if isinstance(each, SendMail)]
    assert [mail.template for mail in mails] == ["password-changed", "address-changed", "verify-address"]
    assert accounts.sealer.unseal_secret("mailer", mails.pop().to) == "new@example.com"
    for mail in mails:
        assert accounts.sealer.unseal_secret("mailer", mail.to) == USER["email"]
        assert json.loads(accounts.sealer.unseal_secret("mailer", mail.variables)) == {"application": "An app"}


async def test_update_without_change_mails_nothing(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    accounts.clear()
    await accounts.deliver(update_application_user(token, username="M", password=PASSWORD, email=USER["email"]))
    assert [each for each in accounts.published if isinstance(each, SendMail)] == []


async def test_same_password_keeps_tokens_valid(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    updated = await accounts.deliver(update_application_user(token, password=PASSWORD))
    for valid in (token, updated["token"]):
        await accounts.deliver(check_sign_in(valid))


async def test_new_password_of_a_deactivated_user_gets_no_token(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    user, token = await new_user(accounts, application["apiKey"])
    change = {"password": OTHER_PASSWORD, "current_password": PASSWORD, "active": False}
    updated = await accounts.deliver(update_application_user(token, **change))
    assert updated == {"done": True, "username": user["username"], "email": user["email"]}


async def test_update_is_validated_like_a_sign_up(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    await accounts.deliver(sign_up(application["apiKey"], email="other@example.com"))
    taken = update_application_user(token, email="other@example.com", current_password=PASSWORD)
    assert await refusal(accounts, taken) == ("conflict", "email_taken")
    await accounts.deliver(update_application_user(token, email=USER["email"]))
    for wrong in ({"email": "nobody"}, {"password": "short"}, {"password": "password1"}):
        command = update_application_user(token, **wrong)
        assert await refusal(accounts, command) == ("validation_failed", "validation_failed")


async def test_token_expires_after_a_day(accounts: ServiceHarness) -> None:
    application = await new_application(accounts)
    _, token = await new_user(accounts, application["apiKey"])
    accounts.now += timedelta(hours=24) - timedelta(seconds=1)
    await accounts.deliver(check_sign_in(token))
    accounts.now += timedelta(seconds=1)
    assert await refusal(accounts, check_sign_in(token)) == NOT_LOGGED_IN


@pytest.mark.parametrize("token", ["", "x", "a.b.c", '{"$gt": ""}', "x" * 4_096])
async def test_text_that_is_no_token_is_refused(accounts: ServiceHarness, token: str) -> None:
    for command in (check_sign_in(token), get_application_user(token), update_application_user(token, username="x")):
        assert await refusal(accounts, command) == NOT_LOGGED_IN


async def test_tokens_of_other_types_are_refused(harness: ServiceHarness) -> None:
    application = await new_application(harness)
    _, token = await new_user(harness, application["apiKey"])
    claims = jwt.decode(token, options={"verify_signature": False})
    claims.pop("iss")
    signer = harness.context.signer
    other_tokens = [
        (await log_in(harness))["access_token"],
        signer.sign_access(claims),
        signer.sign(claims, typ=DELETION_TYPE),
        signer.sign({**claims, "aud": UNKNOWN_ID}, typ="application+jwt"),
        signer.sign({**claims, "sub": UNKNOWN_ID}, typ="application+jwt"),
        jwt.encode({**claims, "iss": "x"}, "", algorithm="none", headers={"typ": "application+jwt"}),
    ]
    for other in other_tokens:
        assert await refusal(harness, check_sign_in(other)) == NOT_LOGGED_IN
    await harness.deliver(check_sign_in(token))


async def test_password_is_rehashed_at_sign_in_after_a_change_of_parameters(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with new_harness(**CHEAP) as before:
        application = await new_application(before)
        _, token = await new_user(before, application["apiKey"])
    async with new_harness(**{**CHEAP, "password_passes": 2}) as after:
        await after.deliver(sign_in_with_email(application["apiKey"]))
        assert ",t=2," in (await after.database["application_users"].find_one({}))["passwordHash"]
        await after.deliver(check_sign_in(token))
        await after.deliver(sign_in_with_email(application["apiKey"]))
