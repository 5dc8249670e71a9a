"""Billing killed between a Stripe call and its commit, and Stripe calls that fail after taking effect."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from pymongo import MongoClient

from services.stripe_double import FaultKind
from tests.stack import Login, Stack, eventually

DEVICE = {"platform": "mac", "beak_id": "beak_1", "fingerprint": "print_1"}


SEPARATE = ("billing",)
"""Services that run as processes of their own, to be killed."""


def assert_one_of_each(stack: Stack, mongo: MongoClient[dict[str, object]]) -> None:
    """Assert one customer, one subscription and one trial, in Nest and at Stripe."""
    assert (len(stack.stripe.objects("customer")), len(stack.stripe.objects("subscription"))) == (1, 1)
    database = mongo[stack.environment["NEST_DATABASE_PREFIX"] + "billing"]
    counts = {name: database[name].count_documents({}) for name in ("trials", "subscriptions", "provider_mappings")}
    assert counts == {"trials": 1, "subscriptions": 1, "provider_mappings": 1}


@pytest.mark.parametrize("point", ["B1:1", "B1:2"])
async def test_billing_killed_after_a_stripe_call_creates_one_trial(
    nest: Stack, point: str, mongo_client: MongoClient[dict[str, object]]
) -> None:
    billing = nest.processes["billing"]
    email = "ada@example.com"
    await billing.stop()
    await billing.start(NEST_CRASH_AT=point)
    login, key = Login(email), "idempotency-key-1"
    arguments = login.request(device=DEVICE)
    first = asyncio.create_task(nest.call("create_trial_and_magic_link", arguments, idempotency_key=key))

    assert await billing.ended() == 137, "the fault did not happen"
    assert len(nest.stripe.objects("customer")) == 1
    await billing.start()
    assert (await first).status_code in {204, 503, 504}

    async def repeated() -> bool:
        return (await nest.call("create_trial_and_magic_link", arguments, idempotency_key=key)).status_code == 204

    await eventually(repeated, what="the trial")
    await nest.mail(email, count=2)
    await nest.stripe.webhooks.drain()
    assert len(nest.inbox.arrivals(email)) == 2
    assert_one_of_each(nest, mongo_client)


@pytest.mark.parametrize("point", ["B1:1", "B1:2", "B1:3"])
async def test_billing_killed_during_a_refund_refunds_once(nest: Stack, point: str) -> None:
    """After the cancellation, after the refund, after the reversal of the credit."""
    billing, stripe = nest.processes["billing"], nest.stripe
    price, email = nest.environment["NEST_STRIPE_TRIAL_PRICE"], "ada@example.com"
    first = stripe.simulate.checkout(price, email=email)
    await nest.mail(email, count=1)
    await billing.stop()
    await billing.start(NEST_CRASH_AT=point)
    await stripe.clock.advance(timedelta(seconds=1))
    second = stripe.simulate.checkout(price, customer=first["customer"])

    assert await billing.ended() == 137, "the fault did not happen"
    await billing.start()

    async def refunded() -> bool:
        return len(stripe.objects("customer_balance_transaction")) == len(stripe.objects("refund")) == 1

    await eventually(refunded, what="the refund")
    await nest.mail(email, count=2)
    await stripe.webhooks.drain()
    assert stripe.object("subscription", second["id"])["status"] == "canceled"
    assert stripe.object("subscription", first["id"])["status"] == "active"
    assert stripe.object("customer", first["customer"])["balance"] == 0
    assert (len(stripe.objects("refund")), len(stripe.objects("customer_balance_transaction"))) == (1, 1)
    assert len(nest.inbox.arrivals(email)) == 2


async def test_a_repeat_after_a_stripe_failure_creates_one_trial(
    nest: Stack, mongo_client: MongoClient[dict[str, object]]
) -> None:
    email = "ada@example.com"
    fault = nest.stripe.faults.add(FaultKind.RESET, after_work=True, method="POST", path="/v1/subscriptions")
    arguments = Login(email).request(device=DEVICE)
    refused = await nest.call("create_trial_and_magic_link", arguments)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert fault.hits > 0
    nest.stripe.faults.clear()

    async def repeated() -> bool:
        return (await nest.call("create_trial_and_magic_link", arguments)).status_code == 204

    await eventually(repeated, what="the trial")
    await nest.mail(email, count=2)
    assert_one_of_each(nest, mongo_client)
