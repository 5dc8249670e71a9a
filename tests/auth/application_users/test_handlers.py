import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from services.auth.accounts.models import DELETION_TYPE
from shared.messages import Caller
from tests.auth.accounts.flows import (
    CHEAP,
    NOBODYS_ID,
    NOBODYS_KEY,
    OTHER_PASSWORD,
    PASSWORD,
    USER,
    an_application,
    check_sign_in,
    get_application_user,
    left,
    sign_in,
    sign_in_with_email,
    sign_up,
    signed_in,
    update_application_user,
)
from tests.auth.flows import logged_in, one_delivery, refusal
from tests.service_harness import Refused, ServiceHarness

WRONG = ("unauthenticated", "wrong_credentials")
NOT_LOGGED_IN = ("unauthenticated", "not_logged_in")


async def test_somebody_signs_up_for_a_year(accounts: ServiceHarness) -> None:
    accounts.now = datetime(2026, 2, 6, 23, 59, tzinfo=UTC)
    application = await an_application(accounts)
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
        *("updatedAt", "endsAt", "version"),
    }
    inbox = str(await accounts.database["inbox"].find().to_list())
    for secret in (PASSWORD, application["apiKey"]):
        assert secret not in f"{document}{inbox}"


async def test_an_address_is_one_users_in_an_application(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    other = await an_application(accounts, email="other@example.com")
    orders = [sign_up(application["apiKey"], username=f"{n}") for n in range(6)]
    outcomes = await asyncio.gather(*map(accounts.deliver, orders), return_exceptions=True)
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
    assert {(each.kind, each.code) for each in outcomes if isinstance(each, Refused)} == {("conflict", "email_taken")}
    await accounts.deliver(sign_up(other["apiKey"]))


async def test_a_sign_up_delivered_twice_makes_one_user(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    delivery = one_delivery(accounts, sign_up(application["apiKey"]))
    first = await accounts.deliver(sign_up(application["apiKey"]), **delivery)
    assert await accounts.deliver(sign_up(application["apiKey"]), **delivery) == first
    assert (await left(accounts))["application_users"] == 1


@pytest.mark.parametrize(("field", "value"), [("email", "nobody"), ("password", "bond007"), ("password", "password1")])
async def test_a_wrong_field_of_a_sign_up_is_named(accounts: ServiceHarness, field: str, value: str) -> None:
    application = await an_application(accounts)
    with pytest.raises(Refused) as refused:
        await accounts.deliver(sign_up(application["apiKey"], **{field: value}))
    assert [error["path"] for error in refused.value.meta["errors"]] == [field]


async def test_somebody_logs_in_by_address_and_password(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    user = await accounts.deliver(sign_up(application["apiKey"]))
    answer = await accounts.deliver(sign_in_with_email(application["apiKey"], "J.BOND@example.com"))
    assert answer == {"auth": True, "token": answer["token"], "uuid": user["uuid"]}
    claims = jwt.decode(answer["token"], options={"verify_signature": False})
    assert (claims["aud"], claims["sub"]) == (application["uuid"], user["uuid"])
    assert claims["exp"] - claims["iat"] == 24 * 3600
    assert jwt.get_unverified_header(answer["token"])["typ"] == "application+jwt"
    assert await accounts.deliver(check_sign_in(answer["token"])) == {"auth": True, "token": answer["token"]}
    assert await accounts.deliver(get_application_user(answer["token"])) == user


async def test_a_wrong_password_an_unknown_address_and_another_application_are_refused_alike(
    accounts: ServiceHarness,
) -> None:
    application = await an_application(accounts)
    other = await an_application(accounts, email="other@example.com")
    await accounts.deliver(sign_up(application["apiKey"]))
    for order in (
        sign_in_with_email(application["apiKey"], password=OTHER_PASSWORD),
        sign_in_with_email(application["apiKey"], password=""),
        sign_in_with_email(application["apiKey"], "nobody@example.com"),
        sign_in_with_email(other["apiKey"]),
    ):
        assert await refusal(accounts, order) == WRONG


async def test_ten_wrong_passwords_stop_strangers_and_nobody_who_is_logged_in(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    key, home = application["apiKey"], Caller(client_ip="2001:db8:1:2::3")
    await accounts.deliver(sign_up(key))
    token = (await accounts.deliver(sign_in_with_email(key), caller=home))["token"]

    for n in range(10):
        stranger = Caller(client_ip=f"198.51.{n}.1")
        assert await refusal(accounts, sign_in_with_email(key, password="wrong"), caller=stranger) == WRONG
    assert await refusal(accounts, sign_in_with_email(key), caller=stranger) == ("throttled", "throttled")

    await accounts.deliver(check_sign_in(token))
    await accounts.deliver(sign_in_with_email(key), caller=Caller(client_ip="2001:db8:1:2:ffff::"))
    for _ in range(10):
        assert await refusal(accounts, sign_in_with_email(key, password="wrong"), caller=home) == WRONG
    assert await refusal(accounts, sign_in_with_email(key), caller=home) == ("throttled", "throttled")


async def test_guesses_in_one_application_are_not_counted_in_another(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    other = await an_application(accounts, email="other@example.com")
    await accounts.deliver(sign_up(other["apiKey"]))
    for _ in range(10):
        await refusal(accounts, sign_in_with_email(application["apiKey"]))
    await accounts.deliver(sign_in_with_email(other["apiKey"]))


async def test_two_ids_are_enough_only_where_the_application_was_made_for_it(accounts: ServiceHarness) -> None:
    usual = await an_application(accounts)
    passwordless = await an_application(accounts, email="other@example.com", passwordless=True)
    users = [await accounts.deliver(sign_up(each["apiKey"])) for each in (usual, passwordless)]

    order = sign_in(users[0]["uuid"], usual["apiKey"])
    assert await refusal(accounts, order) == ("forbidden", "password_required")
    answer = await accounts.deliver(sign_in(users[1]["uuid"].upper(), passwordless["apiKey"].lower()))

    assert answer == {"auth": True, "token": answer["token"]}
    assert (await accounts.deliver(get_application_user(answer["token"])))["uuid"] == users[1]["uuid"]
    for uuid in (NOBODYS_ID, users[0]["uuid"]):
        order = sign_in(uuid, passwordless["apiKey"])
        assert await refusal(accounts, order) == ("not_found", "application_user_not_found")
    for uuid in ("", '{"$gt": ""}'):
        order = sign_in(uuid, passwordless["apiKey"])
        assert await refusal(accounts, order) == ("validation_failed", "validation_failed")


async def test_old_clients_log_in_with_two_ids_everywhere(old_accounts: ServiceHarness) -> None:
    application = await an_application(old_accounts)
    user = await old_accounts.deliver(sign_up(application["apiKey"], password="bond007"))
    answer = await old_accounts.deliver(sign_in(user["uuid"], application["apiKey"]))
    await old_accounts.deliver(check_sign_in(answer["token"]))


async def test_an_application_that_is_not_there_is_not_found(accounts: ServiceHarness) -> None:
    for order in (sign_up(NOBODYS_KEY), sign_in(NOBODYS_ID, NOBODYS_KEY), sign_in_with_email(NOBODYS_KEY)):
        assert await refusal(accounts, order) == ("not_found", "application_not_found")


async def test_nobody_is_let_in_after_the_end_dates(accounts: ServiceHarness) -> None:
    application = await an_application(accounts, passwordless=True)
    key = application["apiKey"]
    accounts.now += timedelta(days=1)
    user = await accounts.deliver(sign_up(key))

    accounts.now += timedelta(days=364)
    for order in (sign_up(key, email="new@example.com"), sign_in(user["uuid"], key), sign_in_with_email(key)):
        assert await refusal(accounts, order) == ("forbidden", "application_ended")

    later = accounts.now + timedelta(days=700)
    await accounts.database["applications"].update_one({}, {"$set": {"endsAt": later}})
    token = (await accounts.deliver(sign_in_with_email(key)))["token"]
    await accounts.database["application_users"].update_one({}, {"$set": {"endsAt": accounts.now}})
    for order in (sign_in(user["uuid"], key), sign_in_with_email(key)):
        assert await refusal(accounts, order) == ("forbidden", "application_user_ended")
    assert await refusal(accounts, check_sign_in(token)) == NOT_LOGGED_IN


async def test_who_is_not_active_learns_it_only_with_the_right_password(accounts: ServiceHarness) -> None:
    application = await an_application(accounts, passwordless=True)
    user, token = await signed_in(accounts, application["apiKey"])
    await accounts.deliver(update_application_user(token, active=False))

    for order in (check_sign_in(token), get_application_user(token), update_application_user(token, active=True)):
        assert await refusal(accounts, order) == NOT_LOGGED_IN
    for order in (sign_in_with_email(application["apiKey"]), sign_in(user["uuid"], application["apiKey"])):
        assert await refusal(accounts, order) == ("forbidden", "application_user_not_active")
    assert await refusal(accounts, sign_in_with_email(application["apiKey"], password="wrong")) == WRONG


async def test_an_update_changes_what_is_given(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    user, token = await signed_in(accounts, application["apiKey"])
    order = update_application_user(token, username="M", email="M@example.com")
    delivery = one_delivery(accounts, order)
    for _ in range(2):
        answer = await accounts.deliver(order, **delivery)
        assert answer == {"done": True, "username": "M", "email": "m@example.com"}
    assert await accounts.deliver(get_application_user(token)) == {**user, "username": "M", "email": "m@example.com"}
    assert (await accounts.database["application_users"].find_one({}))["version"] == 2


async def test_another_password_ends_older_tokens_of_the_same_second(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    _, token = await signed_in(accounts, application["apiKey"])
    await accounts.deliver(update_application_user(token, password=OTHER_PASSWORD))
    for order in (check_sign_in(token), update_application_user(token, username="x")):
        assert await refusal(accounts, order) == NOT_LOGGED_IN
    assert await refusal(accounts, sign_in_with_email(application["apiKey"])) == WRONG
    answer = await accounts.deliver(sign_in_with_email(application["apiKey"], password=OTHER_PASSWORD))
    await accounts.deliver(check_sign_in(answer["token"]))


async def test_the_same_password_again_ends_nothing(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    _, token = await signed_in(accounts, application["apiKey"])
    await accounts.deliver(update_application_user(token, password=PASSWORD))
    await accounts.deliver(check_sign_in(token))


async def test_an_update_is_judged_as_a_sign_up_is(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    _, token = await signed_in(accounts, application["apiKey"])
    await accounts.deliver(sign_up(application["apiKey"], email="other@example.com"))
    assert await refusal(accounts, update_application_user(token, email="other@example.com")) == (
        "conflict",
        "email_taken",
    )
    await accounts.deliver(update_application_user(token, email=USER["email"]))
    for wrong in ({"email": "nobody"}, {"password": "short"}, {"password": "password1"}):
        order = update_application_user(token, **wrong)
        assert await refusal(accounts, order) == ("validation_failed", "validation_failed")


async def test_a_token_ends_after_a_day_and_with_its_user(accounts: ServiceHarness) -> None:
    application = await an_application(accounts)
    _, token = await signed_in(accounts, application["apiKey"])
    accounts.now += timedelta(hours=24) - timedelta(seconds=1)
    await accounts.deliver(check_sign_in(token))
    accounts.now += timedelta(seconds=1)
    assert await refusal(accounts, check_sign_in(token)) == NOT_LOGGED_IN


@pytest.mark.parametrize("token", ["", "x", "a.b.c", '{"$gt": ""}', "x" * 100_000])
async def test_what_is_no_token_logs_nobody_in(accounts: ServiceHarness, token: str) -> None:
    for order in (check_sign_in(token), get_application_user(token), update_application_user(token, username="x")):
        assert await refusal(accounts, order) == NOT_LOGGED_IN


async def test_tokens_of_other_kinds_log_nobody_in(harness: ServiceHarness) -> None:
    application = await an_application(harness)
    _, token = await signed_in(harness, application["apiKey"])
    claims = jwt.decode(token, options={"verify_signature": False})
    claims.pop("iss")
    signer = harness.context.signer
    others = [
        (await logged_in(harness))["access_token"],
        signer.sign(claims),
        signer.sign(claims, typ=DELETION_TYPE),
        signer.sign({**claims, "aud": NOBODYS_ID}, typ="application+jwt"),
        signer.sign({**claims, "sub": NOBODYS_ID}, typ="application+jwt"),
        jwt.encode({**claims, "iss": "x"}, "", algorithm="none", headers={"typ": "application+jwt"}),
    ]
    for other in others:
        assert await refusal(harness, check_sign_in(other)) == NOT_LOGGED_IN
    await harness.deliver(check_sign_in(token))


async def test_a_users_password_is_hashed_again_when_the_parameters_have_grown(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with new_harness(**CHEAP) as before:
        application = await an_application(before)
        _, token = await signed_in(before, application["apiKey"])
    async with new_harness(**{**CHEAP, "password_passes": 2}) as after:
        await after.deliver(sign_in_with_email(application["apiKey"]))
        assert ",t=2," in (await after.database["application_users"].find_one({}))["passwordHash"]
        await after.deliver(check_sign_in(token))
        await after.deliver(sign_in_with_email(application["apiKey"]))
