"""Billing killed between a Stripe call and its commit, and Stripe calls that fail after taking effect."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from pymongo import MongoClient

from services.stripe_double import FaultKind
from tests.stack import Login, Stack, code_of, eventually

SEPARATE = ("billing",)
"""Services that run as processes of their own, to be killed."""
IN_STRIPE = ("customer", "subscription", "refund", "customer_balance_transaction")
IN_NEST = ("trials", "subscriptions", "provider_mappings")
TRIAL = {"customer": 1, "subscription": 1, "trials": 1, "subscriptions": 1, "provider_mappings": 1}
"""Number of objects and documents that a trial adds."""


class Added:
    """What a test adds to Stripe and to billing's database, which it shares with the other tests of this file."""

    def __init__(self, stack: Stack, mongo: MongoClient[dict[str, object]]) -> None:
        self._stack = stack
        self._database = mongo[stack.environment["NEST_DATABASE_PREFIX"] + "billing"]
        self._before = self._counts()

    def counts(self) -> dict[str, int]:
        """Number of added Stripe objects and documents by kind, without zeros."""
        return dict(self._counts() - self._before)

    def _counts(self) -> Counter[str]:
        in_stripe = {kind: len(self._stack.stripe.objects(kind)) for kind in IN_STRIPE}
        return Counter({**in_stripe, **{name: self._database[name].count_documents({}) for name in IN_NEST}})


@pytest.fixture
def added(shared_nest: Stack, mongo_client: MongoClient[dict[str, object]]) -> Added:
    """What this test adds."""
    return Added(shared_nest, mongo_client)


def device(name: str) -> dict[str, str]:
    """A device of its own for each test, since each gets one trial."""
    return {"platform": "mac", "beak_id": f"beak_{name}", "fingerprint": f"print_{name}"}


async def log_in_by_link(nest: Stack, login: Login) -> None:
    """Redeem the link of a trial, and wait for the welcome that follows."""
    code = code_of(await nest.mail(login.email), login)
    assert (await nest.call("authenticate_user", login.redemption(code))).status_code == 200
    await nest.mail(login.email, count=2)


@pytest.mark.parametrize("point", ["B1:1", "B1:2"])
async def test_billing_killed_after_a_stripe_call_creates_one_trial(
    shared_nest: Stack, point: str, added: Added
) -> None:
    nest, billing = shared_nest, shared_nest.processes["billing"]
    email = f"trial.{point[-1]}@example.com"
    await billing.stop()
    await billing.start(NEST_CRASH_AT=point)
    login, key = Login(email), f"idempotency-key-{point}"
    arguments = login.request(device=device(point))
    first = asyncio.create_task(nest.call("create_trial_and_magic_link", arguments, idempotency_key=key))

    assert await billing.ended() == 137, "the fault did not happen"
    assert added.counts()["customer"] == 1
    await billing.start()
    assert (await first).status_code in {204, 503, 504}

    async def repeated() -> bool:
        return (await nest.call("create_trial_and_magic_link", arguments, idempotency_key=key)).status_code == 204

    await eventually(repeated, what="the trial")
    await log_in_by_link(nest, login)
    await nest.stripe.webhooks.drain()
    assert len(nest.inbox.arrivals(email)) == 2
    assert added.counts() == TRIAL


async def test_billing_killed_while_a_trial_is_undone_undoes_it_once(
    shared_nest: Stack, added: Added, mongo_client: MongoClient[dict[str, object]]
) -> None:
    nest, billing, login = shared_nest, shared_nest.processes["billing"], Login("undone@example.com")
    ordered = await nest.call("create_trial_and_magic_link", login.request(device=device("undone")))
    assert ordered.status_code == 204, ordered.text
    await nest.mail(login.email)
    await billing.stop()
    # The trial's day passes.
    timers = mongo_client[nest.environment["NEST_DATABASE_PREFIX"] + "billing"]["timers"]
    day = 24 * 60 * 60 * 1000
    timers.update_many({"type": "billing.undo-trial"}, [{"$set": {"at": {"$subtract": ["$at", day]}}}])
    await billing.start(NEST_CRASH_AT="B1:1")
    assert await billing.ended() == 137, "the fault did not happen"
    await billing.start()

    await eventually(lambda: "trials" not in added.counts(), what="the removal of the trial")
    await nest.stripe.webhooks.drain()
    assert [each["status"] for each in nest.stripe.objects("subscription")][-1] == "canceled"
    assert len(nest.inbox.arrivals(login.email)) == 1


@pytest.mark.parametrize("point", ["B1:1", *(pytest.param(each, marks=pytest.mark.slow) for each in ("B1:2", "B1:3"))])
async def test_billing_killed_during_a_refund_refunds_once(shared_nest: Stack, point: str, added: Added) -> None:
    """After the cancellation, after the refund, after the reversal of the credit."""
    nest, billing, stripe = shared_nest, shared_nest.processes["billing"], shared_nest.stripe
    price, email = nest.environment["NEST_STRIPE_TRIAL_PRICE"], f"refund.{point[-1]}@example.com"
    first = stripe.simulate.checkout(price, email=email)
    await nest.mail(email, count=1)
    await billing.stop()
    await billing.start(NEST_CRASH_AT=point)
    await stripe.clock.advance(timedelta(seconds=1))
    second = stripe.simulate.checkout(price, customer=first["customer"])

    assert await billing.ended() == 137, "the fault did not happen"
    await billing.start()

    async def refunded() -> bool:
        counts = added.counts()
        return counts.get("customer_balance_transaction") == counts.get("refund") == 1

    await eventually(refunded, what="the refund")
    await nest.mail(email, count=2)
    await stripe.webhooks.drain()
    assert stripe.object("subscription", second["id"])["status"] == "canceled"
    assert stripe.object("subscription", first["id"])["status"] == "active"
    assert stripe.object("customer", first["customer"])["balance"] == 0
    assert added.counts() == {
        "customer": 1,
        "subscription": 2,
        "refund": 1,
        "customer_balance_transaction": 1,
        "subscriptions": 2,
        "provider_mappings": 1,
    }
    assert len(nest.inbox.arrivals(email)) == 2


async def test_a_repeat_after_a_stripe_failure_creates_one_trial(shared_nest: Stack, added: Added) -> None:
    nest, email = shared_nest, "failure@example.com"
    fault = nest.stripe.faults.add(FaultKind.RESET, after_work=True, method="POST", path="/v1/subscriptions")
    login = Login(email)
    arguments = login.request(device=device("failure"))
    refused = await nest.call("create_trial_and_magic_link", arguments)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert fault.hits > 0
    nest.stripe.faults.clear()

    async def repeated() -> bool:
        return (await nest.call("create_trial_and_magic_link", arguments)).status_code == 204

    await eventually(repeated, what="the trial")
    await log_in_by_link(nest, login)
    assert added.counts() == TRIAL
