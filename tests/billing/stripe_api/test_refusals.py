"""Refusals of calls that Stripe would refuse again: counted, logged, never a dead letter."""

from typing import Any

import pytest

from services.stripe_double import FaultKind
from shared.messages.billing.runs import ContinueStripeRun, GetStripeRun, ReconcileSubscriptions
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    CancelSubscriptionWithoutCoupon,
    CheckSubscriptionAccess,
    CheckSubscriptionRenewal,
    DuplicateSubscriptionFound,
    FollowCustomer,
    RefundDuplicateSubscription,
)
from tests.billing.conftest import ADA, Shop, counter


def refuse(shop: Shop, method: str, path: str) -> None:
    shop.double.faults.add(FaultKind.REFUSED, method=method, path=path, code="parameter_unknown", param="expand")


def refusals(call: str) -> float:
    return counter("nest_stripe_refusals", call=call, code="parameter_unknown")


@pytest.mark.parametrize(
    ("event_type", "path", "call"),
    [
        ("customer.subscription.created", "/v1/subscriptions/*", "subscription"),
        ("payment_intent.succeeded", "/v1/payment_intents/*", "payment_intent"),
        ("invoice_payment.paid", "/v1/invoice_payments*", "invoice_payment"),
        ("charge.refunded", "/v1/charges/*", "charge"),
        ("charge.dispute.created", "/v1/disputes/*", "dispute"),
    ],
)
async def test_an_event_whose_object_stripe_refuses_is_settled(
    event_type: str, path: str, call: str, shop: Shop
) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.refund(made["id"], amount=100)
    shop.double.simulate.dispute(made["id"])
    event = next(each for each in shop.double.objects("event") if each["type"] == event_type)
    before = refusals(call)
    refuse(shop, "GET", path)
    await shop.deliver(event)
    (row,) = await shop.event_rows()
    assert (row["outcome"], refusals(call)) == ("refused", before + 1)
    assert row["expiresAt"] is not None


async def test_a_duplicate_that_stripe_does_not_cancel_is_announced(shop: Shop) -> None:
    _, second = await shop.subscribe_twice()
    refuse(shop, "DELETE", "/v1/subscriptions/*")
    before = refusals("cancel")
    await shop.deliver_all()
    assert len(shop.harness.published_of(CancelDuplicateSubscription)) >= 1
    assert len(shop.harness.published_of(DuplicateSubscriptionFound)) == 1
    assert refusals("cancel") > before
    assert (await shop.record(second["id"]))["status"] == "active"


async def test_other_commands_end_when_stripe_refuses_them(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    ours = (await shop.record(made["id"]))["_id"]
    refuse(shop, "GET", "*")
    commands: list[Any] = [
        FollowCustomer(key="c", customer_id=made["customer"]),
        RefundDuplicateSubscription(key="s", subscription_id=ours),
        CancelSubscriptionWithoutCoupon(key="s", subscription_id=ours),
        CancelDuplicateSubscription(key="s", subscription_id=ours, kept_subscription_id=ours),
    ]
    not_refunded = counter("nest_stripe_not_refunded")
    for command in commands:
        assert await shop.harness.deliver(command) is None
    delayed = [message for _, message in await shop.harness.delayed()]
    assert [
        message for message in delayed if not isinstance(message, CheckSubscriptionAccess | CheckSubscriptionRenewal)
    ] == []
    assert counter("nest_stripe_not_refunded") == not_refunded + 1


async def test_a_run_stops_when_stripe_refuses_a_step(shop: Shop) -> None:
    refuse(shop, "GET", "/v1/subscriptions")
    run = await shop.harness.deliver(ReconcileSubscriptions(key="run", repair=False))
    while steps := shop.harness.published_of(ContinueStripeRun):
        shop.harness.clear()
        await shop.harness.deliver(steps[0])
    view = await shop.harness.deliver(GetStripeRun(run_id=run["id"]))
    assert (view["status"], view["stage"]) == ("stopped", "subscriptions")
