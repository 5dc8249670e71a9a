"""Links that are mailed to owners and to users of applications: new passwords, and proof of addresses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from shared.ids import new_message_id
from shared.messages import Caller, Message, Sealed
from shared.messages.auth.account_links import (
    ForgotOwnerPassword,
    ForgotPassword,
    MailAccountLink,
    ResetPassword,
    SendVerification,
    VerifyAddress,
)
from shared.messages.auth.applications import UpdateApplication
from shared.messages.mailer.mails import SendMail
from tests.auth.accounts.flows import (
    CHEAP,
    OTHER_PASSWORD,
    OWNER,
    PASSWORD,
    UNKNOWN_KEY,
    USER,
    check_sign_in,
    delete_owner,
    get_application_user,
    log_in_owner,
    message,
    new_application,
    new_owner,
    new_user,
    sign_in,
    sign_in_with_email,
    sign_up,
    update_application_user,
)
from tests.auth.flows import redeliverable, refusal
from tests.service_harness import ServiceHarness

DONE = {"done": True}
NOT_VALID = ("unauthenticated", "link_not_valid")
EMAIL = USER["email"]


def forgot(apikey: str, email: str = EMAIL, **more: Any) -> Message:
    return message(ForgotPassword, apikey=apikey, email=email, **more)


def reset(token: str, password: str = OTHER_PASSWORD) -> Message:
    return message(ResetPassword, token=token, password=password)


def verify(token: str) -> Message:
    return message(VerifyAddress, token=token)


def mails(harness: ServiceHarness) -> list[SendMail]:
    return [each for each in harness.published if isinstance(each, SendMail)]


async def link_in(harness: ServiceHarness, template: str) -> tuple[str, str]:
    """Deliver the orders of links; return address and token of the only mail of a template, and forget the mails."""
    for order in [each for each in harness.published if isinstance(each, MailAccountLink)]:
        await harness.deliver(order)
    [mail] = [each for each in mails(harness) if each.template == template]
    variables = json.loads(harness.sealer.unseal_secret("mailer", mail.variables))
    harness.clear()
    return harness.sealer.unseal_secret("mailer", mail.to), variables["link"].rpartition("/")[2]


async def reset_token(harness: ServiceHarness, apikey: str) -> str:
    harness.clear()
    assert await harness.deliver(forgot(apikey)) == DONE
    address, token = await link_in(harness, "password-reset")
    assert address == EMAIL
    return token


async def test_reset_link_sets_a_password_once_and_ends_all_tokens(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    _, old = await new_user(accounts, key)
    token = await reset_token(accounts, key)

    assert await accounts.deliver(reset(token)) == DONE

    assert await refusal(accounts, check_sign_in(old)) == ("unauthenticated", "not_logged_in")
    assert (await refusal(accounts, sign_in_with_email(key)))[1] == "wrong_credentials"
    new = (await accounts.deliver(sign_in_with_email(key, password=OTHER_PASSWORD)))["token"]
    assert (await accounts.deliver(get_application_user(new)))["verified"] is True
    assert [mail.template for mail in mails(accounts)] == ["password-changed"]
    assert await refusal(accounts, reset(token, PASSWORD)) == NOT_VALID


async def test_second_delivery_of_a_reset_returns_the_same_reply(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    await new_user(accounts, key)
    command = reset(await reset_token(accounts, key))
    delivery = redeliverable(accounts, command)
    for _ in range(2):
        assert await accounts.deliver(command, **delivery) == DONE
    assert len(mails(accounts)) == 1


async def test_one_of_concurrent_resets_with_a_link_succeeds(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    await new_user(accounts, key)
    token = await reset_token(accounts, key)
    commands = [reset(token, f"a new password, number {number}") for number in range(6)]
    outcomes = await asyncio.gather(
        *(accounts.deliver(command, id=new_message_id()) for command in commands), return_exceptions=True
    )
    assert sum(outcome == DONE for outcome in outcomes) == 1
    assert {getattr(outcome, "code", "done") for outcome in outcomes} == {"done", "link_not_valid"}


async def test_refused_password_does_not_use_the_link_up(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    await new_user(accounts, key)
    token = await reset_token(accounts, key)
    for wrong in ("short", "password1", "x" * 256):
        assert (await refusal(accounts, reset(token, wrong)))[1] == "validation_failed"
    assert await accounts.deliver(reset(token)) == DONE


async def test_reset_link_expires_after_30_minutes(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    await new_user(accounts, key)
    token = await reset_token(accounts, key)
    accounts.now += timedelta(minutes=30)
    assert await refusal(accounts, reset(token)) == NOT_VALID
    await accounts.deliver(sign_in_with_email(key))


async def test_forged_links_are_refused(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    await new_user(accounts, key)
    token = await reset_token(accounts, key)
    await accounts.deliver(message(SendVerification, apikey=key, email=EMAIL))
    _, proof = await link_in(accounts, "verify-address")
    link_id, _, secret = token.partition(".")
    forged = (
        *("", "x", ".", f"{link_id}.", f".{secret}", f"{token}0", f"{link_id}.{'0' * 64}", '{"$gt": ""}.x', "é.é"),
        f"{proof.partition('.')[0]}.{secret}",
        # A link of another kind.
        proof,
    )
    for each in forged:
        assert await refusal(accounts, reset(each)) == NOT_VALID, each
    assert await refusal(accounts, verify(token)) == NOT_VALID
    await accounts.deliver(sign_in_with_email(key))
    assert await accounts.deliver(reset(token)) == DONE


async def test_unknown_links_are_limited_per_network(new_harness: Callable[..., ServiceHarness]) -> None:
    caller = Caller(client_ip="198.51.100.7")
    async with new_harness(**CHEAP, limit_wrong_keys_per_prefix="3/5m") as harness:
        for _ in range(3):
            assert await refusal(harness, reset(f"x.{'0' * 64}"), caller=caller) == NOT_VALID
        assert (await refusal(harness, reset(f"x.{'0' * 64}"), caller=caller))[1] == "throttled"


async def test_link_is_void_after_the_address_has_changed(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    _, user_token = await new_user(accounts, key)
    token = await reset_token(accounts, key)
    await accounts.deliver(update_application_user(user_token, email="new@example.com", current_password=PASSWORD))
    assert await refusal(accounts, reset(token)) == NOT_VALID


async def test_reset_voids_all_other_links_of_the_account(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    await new_user(accounts, key)
    first, second = await reset_token(accounts, key), await reset_token(accounts, key)
    await accounts.deliver(reset(first))
    assert await refusal(accounts, reset(second)) == NOT_VALID
    assert await accounts.database["account_links"].count_documents({}) == 0


async def test_orders_for_known_and_unknown_addresses_commit_the_same(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    await new_user(accounts, key)
    kinds = []
    for email in (EMAIL, "nobody@example.com"):
        accounts.clear()
        assert await accounts.deliver(forgot(key, email)) == DONE
        kinds.append([type(each) for each in accounts.published])
    assert kinds[0] == kinds[1] == [MailAccountLink]
    for order in list(accounts.published):
        await accounts.deliver(order)
    assert mails(accounts) == []


async def test_order_names_no_address_in_plain_text(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    await new_user(accounts, key)
    await reset_token(accounts, key)
    assert EMAIL not in str(await accounts.database["inbox"].find().to_list())


@pytest.mark.parametrize("kind", [ForgotPassword, SendVerification])
async def test_order_needs_a_current_application_and_a_valid_address(
    accounts: ServiceHarness, kind: type[Message]
) -> None:
    key = (await new_application(accounts))["apiKey"]
    for apikey, email, code in (
        ("x", EMAIL, "malformed_api_key"),
        (UNKNOWN_KEY, EMAIL, "application_not_found"),
        (key, "nobody", "validation_failed"),
    ):
        assert (await refusal(accounts, message(kind, apikey=apikey, email=email)))[1] == code
    accounts.now += timedelta(days=365)
    assert (await refusal(accounts, message(kind, apikey=key, email=EMAIL)))[1] == "application_ended"


async def test_known_and_unknown_addresses_get_as_many_links(new_harness: Callable[..., ServiceHarness]) -> None:
    async with new_harness(**CHEAP, limit_magic_links_per_address="1/1m, 5/1h, 10/1d") as harness:
        key = (await new_application(harness))["apiKey"]
        await new_user(harness, key)
        await new_owner(harness, email=EMAIL)
        orders: tuple[Callable[[str], Message], ...] = (
            lambda email: forgot(key, email),
            lambda email: message(ForgotOwnerPassword, email=email),
            lambda email: message(SendVerification, apikey=key, email=email),
        )
        harness.now += timedelta(minutes=1)
        for order in orders:
            for email in (EMAIL, "nobody@example.com"):
                assert await harness.deliver(order(email)) == DONE
                for spelling in (email, email.upper()):
                    assert (await refusal(harness, order(spelling)))[1] == "throttled"


async def test_another_application_cannot_exhaust_a_users_resets(new_harness: Callable[..., ServiceHarness]) -> None:
    async with new_harness(**CHEAP, limit_magic_links_per_address="1/1d") as harness:
        key = (await new_application(harness))["apiKey"]
        strangers = (await new_application(harness, email="stranger@example.com"))["apiKey"]
        await new_user(harness, key)
        await harness.deliver(forgot(strangers))
        await reset_token(harness, key)


async def test_sign_up_mails_a_proof_that_verifies_the_address_once(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    accounts.clear()
    _, token = await new_user(accounts, key, locale="de")
    assert mails(accounts)[0].locale == "de"
    address, proof = await link_in(accounts, "verify-address")
    assert address == EMAIL
    assert (await accounts.deliver(get_application_user(token)))["verified"] is False

    assert await accounts.deliver(verify(proof)) == DONE

    assert (await accounts.deliver(get_application_user(token)))["verified"] is True
    assert await refusal(accounts, verify(proof)) == NOT_VALID
    # A proven address gets no further mail.
    assert await accounts.deliver(message(SendVerification, apikey=key, email=EMAIL)) == DONE
    for order in list(accounts.published):
        if isinstance(order, MailAccountLink):
            await accounts.deliver(order)
    assert mails(accounts) == []


async def test_proof_expires_after_a_day(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    await new_user(accounts, key)
    _, proof = await link_in(accounts, "verify-address")
    accounts.now += timedelta(days=1)
    assert await refusal(accounts, verify(proof)) == NOT_VALID


async def test_sign_up_succeeds_without_a_mail_above_the_limit(new_harness: Callable[..., ServiceHarness]) -> None:
    async with new_harness(**CHEAP, limit_magic_links_per_address="1/1d") as harness:
        keys = [(await new_application(harness, email=f"{n}@example.com"))["apiKey"] for n in range(3)]
        for key in keys:
            await harness.deliver(sign_up(key))
        assert [mail.template for mail in mails(harness)] == ["verify-address"]


async def test_another_address_is_not_proven(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    _, token = await new_user(accounts, key)
    _, proof = await link_in(accounts, "verify-address")
    await accounts.deliver(verify(proof))
    await accounts.deliver(update_application_user(token, email=EMAIL, current_password=PASSWORD))
    assert (await accounts.deliver(get_application_user(token)))["verified"] is True
    accounts.clear()
    await accounts.deliver(update_application_user(token, email="new@example.com", current_password=PASSWORD))
    assert (await accounts.deliver(get_application_user(token)))["verified"] is False
    address, proof = await link_in(accounts, "verify-address")
    assert address == "new@example.com"
    await accounts.deliver(verify(proof))
    assert (await accounts.deliver(get_application_user(token)))["verified"] is True


async def test_application_may_let_in_proven_addresses_only(accounts: ServiceHarness) -> None:
    application = await new_application(accounts, passwordless=True, verified_only=True)
    key = application["apiKey"]
    user = await accounts.deliver(sign_up(key))
    for command in (sign_in_with_email(key), sign_in(user["uuid"], key)):
        assert await refusal(accounts, command) == ("forbidden", "address_not_verified")
    # Only with the right password.
    assert (await refusal(accounts, sign_in_with_email(key, password="wrong")))[1] == "wrong_credentials"
    _, proof = await link_in(accounts, "verify-address")
    await accounts.deliver(verify(proof))
    for command in (sign_in_with_email(key), sign_in(user["uuid"], key)):
        await accounts.deliver(command)


async def test_owner_changes_the_settings_of_an_application(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    await accounts.deliver(sign_up(key))

    def change(**fields: Any) -> Message:
        return message(UpdateApplication, apikey=key, **fields)

    for credential, code in (({}, "not_logged_in"), ({"password": "wrong"}, "wrong_credentials")):
        assert (await refusal(accounts, change(verified_only=True, **credential)))[1] == code
    view = {"appname": "An app", "passwordless": False, "verified_only": True}
    assert await accounts.deliver(change(verified_only=True, password=PASSWORD)) == view
    assert (await refusal(accounts, sign_in_with_email(key)))[1] == "address_not_verified"
    token = (await accounts.deliver(log_in_owner()))["token"]
    changed = await accounts.deliver(change(verified_only=False, passwordless=True, owner_token=token))
    assert changed == {**view, "passwordless": True, "verified_only": False}
    assert await accounts.deliver(change(owner_token=token)) == changed
    await accounts.deliver(sign_in_with_email(key))


async def test_squatted_address_is_claimed_by_its_owner(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    user, squatters = await new_user(accounts, key)
    # The squatter also tries to keep the owner out for ever.
    await accounts.deliver(update_application_user(squatters, active=False))
    ended = accounts.now - timedelta(days=1)
    await accounts.database["application_users"].update_one({}, {"$set": {"endsAt": ended}})

    await accounts.deliver(reset(await reset_token(accounts, key)))

    signed_in = await accounts.deliver(sign_in_with_email(key, password=OTHER_PASSWORD))
    assert signed_in["uuid"] == user["uuid"]
    for command in (check_sign_in(squatters), sign_in_with_email(key)):
        assert (await refusal(accounts, command))[0] == "unauthenticated"


async def test_reset_reactivates_no_user_with_a_proven_address(accounts: ServiceHarness) -> None:
    key = (await new_application(accounts))["apiKey"]
    _, token = await new_user(accounts, key)
    _, proof = await link_in(accounts, "verify-address")
    await accounts.deliver(verify(proof))
    await accounts.deliver(update_application_user(token, active=False))
    await accounts.deliver(reset(await reset_token(accounts, key)))
    command = sign_in_with_email(key, password=OTHER_PASSWORD)
    assert await refusal(accounts, command) == ("forbidden", "application_user_not_active")


async def test_owner_resets_the_password(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    logged_in = await accounts.deliver(log_in_owner())
    assert await accounts.deliver(message(ForgotOwnerPassword, email="ADA@example.com", locale="fr")) == DONE
    [order] = [each for each in accounts.published if isinstance(each, MailAccountLink)]
    assert order.locale == "fr"
    address, token = await link_in(accounts, "password-reset")
    assert address == OWNER["email"]

    assert await accounts.deliver(reset(token)) == DONE

    assert (await refusal(accounts, log_in_owner()))[1] == "wrong_credentials"
    await accounts.deliver(log_in_owner(password=OTHER_PASSWORD))
    assert (await accounts.deliver(delete_owner(owner)))["affectedRows"] == 0
    assert await refusal(accounts, reset(token)) == NOT_VALID
    assert logged_in["token"]


async def test_link_of_a_deleted_account_is_refused(accounts: ServiceHarness) -> None:
    owner = await new_owner(accounts)
    await accounts.deliver(message(ForgotOwnerPassword, email=OWNER["email"]))
    _, token = await link_in(accounts, "password-reset")
    await accounts.deliver(delete_owner(owner))
    assert await refusal(accounts, reset(token)) == NOT_VALID


async def test_order_of_a_link_for_a_deleted_application_mails_nothing(accounts: ServiceHarness) -> None:
    await accounts.deliver(MailAccountLink(kind="reset", application_id="gone", email=Sealed.of(EMAIL)))
    assert mails(accounts) == []
