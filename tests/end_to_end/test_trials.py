"""Attacks with orders of trials: by strangers, for other people's addresses, from other people's devices."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.embedded.demo import CLIENT_ID
from tests.end_to_end.flows import Mongo, database, device_of, find_delivery, order_trial, redeem_trial
from tests.stack import REDIRECT_URI, Login, Stack, code_of, eventually

NEW = "2026-12-01"
METHOD = "create_trial_and_magic_link"


def subscriptions(nest: Stack, email: str) -> list[dict[str, Any]]:
    """Subscriptions in Stripe of all customers with this address."""
    customers = {each["id"] for each in nest.stripe.objects("customer") if each.get("email") == email}
    return [each for each in nest.stripe.objects("subscription") if each["customer"] in customers]


def trials(nest: Stack, mongo_client: Mongo) -> Any:
    return database(nest, mongo_client, "billing")["trials"]


async def trial_when(nest: Stack, mongo_client: Mongo, user_id: str, **fields: Any) -> dict[str, Any]:
    """Wait until the trial of a user has these fields."""
    query = {"userId": user_id, **fields}
    found: dict[str, Any] = await eventually(lambda: trials(nest, mongo_client).find_one(query), what=f"{fields}")
    return found


async def status(nest: Stack, tokens: dict[str, Any]) -> Any:
    body = {"user_id": tokens["user_id"]}
    return await nest.call("get_subscription_status", body, authorization=f"bearer {tokens['access_token']}")


async def pass_a_day(nest: Stack, mongo_client: Mongo) -> None:
    """Make the timers of billing that wait for a day or less due now."""
    timers = database(nest, mongo_client, "billing")["timers"]
    moved = timers.update_many(
        {"type": "billing.undo-trial"}, [{"$set": {"at": {"$subtract": ["$at", 25 * 60 * 60 * 1000]}}}]
    )
    assert moved.modified_count


async def test_stranger_cannot_spend_the_trial_of_an_address(nest: Stack, mongo_client: Mongo, email: str) -> None:
    stranger, own = device_of(f"stranger.{email}"), device_of(email)
    await order_trial(nest, Login(email), stranger)
    assert len(nest.inbox.arrivals(email)) == 1, "an order causes one mail"

    tokens = await redeem_trial(nest, Login(email), own)

    await trial_when(nest, mongo_client, tokens["user_id"], provisionalUntil=None, **{"device.beakId": own["beak_id"]})
    assert (await status(nest, tokens)).json()["status"] == "trialing"
    assert len(subscriptions(nest, email)) == 1
    await nest.mail(email, subject="trial", count=1)
    # Two links and one welcome.
    await nest.mail(email, count=3)
    # The stranger's device is free, the owner's has had its trial.
    other = f"other.{email}"
    used = await nest.call(METHOD, Login(other).request(device=own))
    assert (used.status_code, used.json()["code"]) == (409, "trial_already_used")
    await order_trial(nest, Login(other), stranger)
    again = await nest.call(METHOD, Login(email).request(device=stranger))
    assert (again.status_code, again.json()["code"]) == (409, "already_subscribed")
    assert len(nest.inbox.arrivals(email)) == 3


async def test_trial_that_nobody_redeems_is_undone(nest: Stack, mongo_client: Mongo, email: str) -> None:
    await order_trial(nest, Login(email))
    [made] = subscriptions(nest, email)
    invoices = len(nest.stripe.objects("invoice"))
    body = {"identifier_type": "email", "identifier_value": email}
    user_id = (await nest.call("find_user", body, **nest.internal)).json()["id"]

    await pass_a_day(nest, mongo_client)
    await eventually(lambda: trials(nest, mongo_client).count_documents({"userId": user_id}) == 0, what="the removal")

    assert nest.stripe.object("subscription", made["id"])["status"] == "canceled"
    assert len(nest.stripe.objects("invoice")) == invoices
    # Address and device are free: the same order starts another trial.
    tokens = await redeem_trial(nest, Login(email))
    assert [each["status"] for each in subscriptions(nest, email)].count("trialing") == 1
    await trial_when(nest, mongo_client, tokens["user_id"], provisionalUntil=None)
    await nest.stripe.webhooks.drain()
    await nest.mail(email, count=3)
    assert len(nest.inbox.arrivals(email)) == 3, "two links and one welcome"


async def test_unused_user_of_an_undone_trial_is_removed(nest: Stack, mongo_client: Mongo, email: str) -> None:
    await order_trial(nest, Login(email))
    body = {"identifier_type": "email", "identifier_value": email}
    assert (await nest.call("find_user", body, **nest.internal)).status_code == 200
    # The link has expired.
    links = database(nest, mongo_client, "auth")["authorizations"]
    links.update_many({"identifierValue": email}, [{"$set": {"expiresAt": "$createdAt"}}])

    await pass_a_day(nest, mongo_client)

    async def removed() -> bool:
        return (await nest.call("find_user", body, **nest.internal)).status_code == 404

    await eventually(removed, what="the removal of the user")
    await eventually(
        lambda: (
            not [
                each
                for each in nest.stripe.objects("customer")
                if each.get("email") == email and not each.get("deleted")
            ]
        ),
        what="the deletion of the customer",
    )


async def test_plus_tags_get_no_second_trial(nest: Stack, mongo_client: Mongo, email: str) -> None:
    tokens = await redeem_trial(nest, Login(email))
    await trial_when(nest, mongo_client, tokens["user_id"], provisionalUntil=None)
    tagged = email.replace("@", "+second@")
    refused = await nest.call(METHOD, Login(tagged).request(device=device_of(tagged)))
    assert (refused.status_code, refused.json()["code"]) == (409, "trial_already_used")
    assert subscriptions(nest, tagged) == []


@pytest.mark.parametrize("version", ["2021-10-06", NEW])
@pytest.mark.parametrize(
    "device",
    [
        None,
        {},
        *(
            {**device_of("x"), name: blank}
            for name in ("platform", "beak_id", "fingerprint")
            for blank in ("", " ", None)
        ),
        *({key: each for key, each in device_of("x").items() if key != name} for name in device_of("x")),
    ],
)
async def test_empty_or_missing_device_fields_get_422(nest: Stack, version: str, device: Any, email: str) -> None:
    body = Login(email).request(**({} if device is None else {"device": device}))
    refused = await nest.call(METHOD, body, version=version)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")


async def test_newer_version_starts_the_trial_at_the_redemption(nest: Stack, mongo_client: Mongo, email: str) -> None:
    login = Login(email)
    mail = await order_trial(nest, login, version=NEW)
    assert subscriptions(nest, email) == []
    body = {"identifier_type": "email", "identifier_value": email}
    assert (await nest.call("find_user", body, **nest.internal)).status_code == 404

    tokens = (await nest.call("authenticate_user", login.redemption(code_of(mail, login)), version=NEW)).json()

    await trial_when(nest, mongo_client, tokens["user_id"], provisionalUntil=None)
    await nest.mail(email, count=2)
    assert [each["status"] for each in subscriptions(nest, email)] == ["trialing"]


async def test_newer_version_does_not_reveal_who_had_a_trial(nest: Stack, mongo_client: Mongo, email: str) -> None:
    tokens = await redeem_trial(nest, Login(email), version=NEW)
    await trial_when(nest, mongo_client, tokens["user_id"], provisionalUntil=None)
    await nest.mail(email, count=2)
    # The same person, the same device, and a tagged address; each gets a link that only logs in.
    cases = [(email, f"new.{email}"), (f"second.{email}", email), (email.replace("@", "+2@"), f"third.{email}")]
    for address, name in cases:
        login = Login(address)
        mail = await order_trial(nest, login, device_of(name), version=NEW)
        assert not any("flow=trial" in link for link in mail.links)
        redeemed = await nest.call("authenticate_user", login.redemption(code_of(mail, login)), version=NEW)
        assert redeemed.status_code == 200
    await nest.stripe.webhooks.drain()
    assert len(subscriptions(nest, email)) == 1
    assert subscriptions(nest, f"second.{email}") == []


async def test_redemptions_at_once_start_one_trial_per_device(nest: Stack, mongo_client: Mongo, email: str) -> None:
    logins = [Login(f"{number}{email}") for number in range(3)]
    device = device_of(f"shared.{email}")
    mails = [await order_trial(nest, login, device, version=NEW) for login in logins]
    redeemed = await asyncio.gather(
        *(
            nest.call("authenticate_user", login.redemption(code_of(mail, login)))
            for login, mail in zip(logins, mails, strict=True)
        )
    )
    assert [each.status_code for each in redeemed] == [200, 200, 200]
    query = {"device.beakId": device["beak_id"], "stpSubscriptionId": {"$ne": None}}
    await eventually(lambda: trials(nest, mongo_client).count_documents(query) == 1, what="the trial")
    assert sum(len(subscriptions(nest, login.email)) for login in logins) == 1


async def test_mails_wear_the_branding_of_what_was_redeemed(nest: Stack, mongo_client: Mongo, email: str) -> None:
    """A stranger orders links through an app of theirs, to choose how the victim's later mails look."""
    attacker = (await nest.create_client("Attacker"))["id"]
    await nest.log_in(email)
    stranger = Login(email, client_id=attacker, redirect_uri=REDIRECT_URI)
    ordered = await nest.call("send_magic_link", stranger.request(locale="fr"))
    assert ordered.status_code == 204
    await nest.mail(email, count=2)
    trial = Login(email, client_id=attacker, redirect_uri=REDIRECT_URI)
    await order_trial(nest, trial, device_of(f"stranger.{email}"))
    assert (await find_delivery(nest, mongo_client, email, "trial-magic-link"))["clientId"] == attacker

    await redeem_trial(nest, Login(email))

    welcome = await find_delivery(nest, mongo_client, email, "welcome-trial")
    assert (welcome["clientId"], welcome["locale"]) == (CLIENT_ID, None)
