"""Synchronization of a payment's record and its events with Stripe."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.stripe_double import FaultKind
from shared.messages.auth.users import EnsureUser
from shared.messages.billing.payments import (
    FindPayments,
    FollowPayment,
    PaymentCancelled,
    PaymentEvent,
    PaymentRefunded,
    PaymentSucceeded,
)
from tests.billing.conftest import ADA, FAST, Shop


def announced(shop: Shop) -> list[str]:
    """The names of the published events about payments."""
    return [type(message).__name__ for message in shop.harness.published if isinstance(message, PaymentEvent)]


async def test_a_payment_is_stored_with_its_subscription_and_announced(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_types("payment_intent.succeeded")
    paid = shop.payment_intent_of(made)
    record = await shop.payment(paid["id"])
    assert record["_id"].startswith("test_payment_")
    assert {name: record[name] for name in record if name not in ("_id", "version", "readAt")} == {
        "userId": "user_ada",
        "stpPaymentIntentId": paid["id"],
        "stpCustomerId": made["customer"],
        "stpInvoiceId": made["latest_invoice"],
        "stpSubscriptionId": made["id"],
        "stpChargeId": paid["latest_charge"],
        "status": "succeeded",
        "amount": 500,
        "amountReceived": 500,
        "amountRefunded": 0,
        "currency": "usd",
        "failureCode": None,
        "declineCode": None,
        "disputed": False,
        "waitsForPerson": None,
        "toldOf": None,
        "stpCreatedAt": datetime.fromtimestamp(paid["created"], UTC),
        "cancelledAt": None,
        "createdAt": record["createdAt"],
        "updatedAt": record["createdAt"],
    }
    (event,) = shop.harness.published_of(PaymentSucceeded)
    assert (event.user_id, event.payment_id, event.stp_subscription_id, event.amount_received, event.currency) == (
        "user_ada",
        record["_id"],
        made["id"],
        500,
        "usd",
    )


async def test_second_delivery_reads_nothing_and_publishes_nothing(shop: Shop) -> None:
    await shop.declined_renewal()
    await shop.deliver_all()
    calls, published = len(shop.double.log), len(shop.harness.published)
    await shop.deliver_all()
    assert (len(shop.double.log), len(shop.harness.published)) == (calls, published)


async def test_the_zero_invoice_of_a_trial_is_no_payment(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, trial_days=14)
    await shop.deliver_all()
    assert "invoice.paid" in {event["type"] for event in shop.double.objects("event")}
    assert (await shop.count("payments"), announced(shop)) == (0, [])


async def test_a_recovery_is_announced_once_and_clears_the_failure(shop: Shop) -> None:
    made = await shop.declined_renewal()
    await shop.deliver_all()
    shop.harness.clear()
    shop._settled = 0
    shop.double.simulate.recover(made["customer"])
    await shop.deliver_all()
    record = await shop.payment(shop.payment_intent_of(made)["id"])
    assert (record["status"], record["failureCode"], record["waitsForPerson"]) == ("succeeded", None, None)
    assert announced(shop) == ["PaymentSucceeded"]


async def test_a_bank_debit_is_processing_until_it_succeeds_or_fails(shop: Shop) -> None:
    good, bad = (
        shop.double.simulate.checkout(shop.price, email=f"{account}@example.com", metadata=ADA, payment_method=account)
        for account in ("pm_usBankAccount_success", "pm_usBankAccount_insufficientFunds")
    )
    await shop.deliver_types("payment_intent.processing")
    assert (await shop.payment(shop.payment_intent_of(good)["id"]))["status"] == "processing"
    await shop.double.clock.advance(timedelta(days=5))
    await shop.deliver_types("payment_intent.succeeded", "payment_intent.payment_failed")
    assert (await shop.payment(shop.payment_intent_of(good)["id"]))["status"] == "succeeded"
    assert (await shop.payment(shop.payment_intent_of(bad)["id"]))["declineCode"] == "insufficient_funds"
    assert [template for template, _ in shop.mails()].count("payment-failed") == 1


async def test_a_cancelled_payment_is_announced(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, payment_method=None)
    await shop.double.clock.advance(timedelta(days=2))
    await shop.deliver_all()
    record = await shop.payment(shop.payment_intent_of(made)["id"])
    assert (record["status"], record["cancelledAt"] is not None) == ("canceled", True)
    assert (announced(shop), len(shop.harness.published_of(PaymentCancelled))) == (["PaymentCancelled"], 1)


@pytest.mark.parametrize("event_type", ["charge.refunded", "refund.created"])
async def test_refunds_of_a_payment_are_added_up(shop: Shop, event_type: str) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    for amount, total in ((200, 200), (300, 500)):
        shop.double.simulate.refund(made["id"], amount=amount)
        await shop.deliver_types(event_type)
        assert (await shop.payment(shop.payment_intent_of(made)["id"]))["amountRefunded"] == total
    assert [event.amount_refunded for event in shop.harness.published_of(PaymentRefunded)] == [200, 500]


async def test_a_failed_refund_is_subtracted(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    refund = shop.double.simulate.refund(made["id"], amount=200)
    await shop.deliver_all()
    shop.double.simulate.fail_refund(refund["id"])
    await shop.deliver_types("refund.failed")
    assert (await shop.payment(shop.payment_intent_of(made)["id"]))["amountRefunded"] == 0
    assert len(shop.harness.published_of(PaymentRefunded)) == 1


async def test_an_invoice_paid_in_parts_has_several_payments(shop: Shop) -> None:
    made = await shop.declined_renewal()
    part = shop.double.simulate.pay_partially(made["id"], 200)
    shop.double.simulate.recover(made["customer"])
    await shop.deliver_all()
    records = [await shop.payment(part["id"]), await shop.payment(shop.payment_intent_of(made)["id"])]
    assert [(each["amountReceived"], each["stpInvoiceId"], each["stpSubscriptionId"]) for each in records] == [
        (200, made["latest_invoice"], made["id"]),
        (300, made["latest_invoice"], made["id"]),
    ]


async def test_a_payment_linked_to_an_invoice_later_is_read_again(shop: Shop) -> None:
    made = await shop.declined_renewal()
    part = shop.double.simulate.pay_once(200, customer=made["customer"])
    await shop.harness.deliver(FollowPayment(payment_intent_id=part["id"]))
    assert (await shop.payment(part["id"]))["stpSubscriptionId"] is None
    await shop.post(f"/v1/invoices/{made['latest_invoice']}/attach_payment", payment_intent=part["id"])
    await shop.deliver_types("invoice_payment.paid")
    assert (await shop.payment(part["id"]))["stpSubscriptionId"] == made["id"]


async def test_a_payment_without_subscription_creates_no_user_and_no_mail(shop: Shop) -> None:
    customer = await shop.post("/v1/customers", email="bob@example.com")
    without_user = shop.double.simulate.pay_once(500, currency="jpy")
    of_bob = shop.double.simulate.pay_once(
        700, customer=customer["id"], payment_method="pm_card_chargeDeclinedInsufficientFunds"
    )
    of_ada = shop.double.simulate.pay_once(900, metadata=ADA)
    await shop.deliver_all()
    assert [(await shop.payment(each["id"]))["userId"] for each in (without_user, of_bob, of_ada)] == [
        None,
        None,
        "user_ada",
    ]
    assert (shop.harness.published_of(EnsureUser), shop.mails()) == ([], [])
    assert sorted(announced(shop)) == ["PaymentFailed", "PaymentSucceeded", "PaymentSucceeded"]


async def test_a_subscriptions_payment_is_announced_once_its_user_is_known(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    for event in shop.double.objects("event"):
        if event["type"].startswith(("payment_intent.", "charge.", "invoice_payment.")):
            await shop.deliver(event)
    paid = shop.payment_intent_of(made)["id"]
    assert (await shop.payment(paid))["userId"] is None
    assert announced(shop) == []
    (request,) = shop.harness.published_of(EnsureUser)
    assert (request.reference, request.email) == (paid, "ada@example.com")
    await shop.settle()
    user_id = shop.users["ada@example.com"]
    assert (await shop.payment(paid))["userId"] == user_id
    assert [event.user_id for event in shop.harness.published_of(PaymentSucceeded)] == [user_id]
    assert await shop.count("provider_mappings") == 1


async def test_a_missing_payment_is_not_recorded(shop: Shop) -> None:
    await shop.harness.deliver(FollowPayment(payment_intent_id="pi_none"))
    await shop.harness.deliver(FindPayments(object="charge", object_id="ch_none"))
    assert (await shop.count("payments"), shop.harness.published) == (0, [])


async def test_payments_of_a_deleted_customer_keep_their_user(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await shop.deliver_all()
    shop.double.simulate.delete_customer(made["customer"])
    paid = shop.payment_intent_of(made)["id"]
    await shop.harness.deliver(FollowPayment(payment_intent_id=paid))
    assert (await shop.payment(paid))["userId"] == shop.users["ada@example.com"]


async def test_a_payment_is_recorded_after_an_outage_of_stripe(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.harness.context.stripe.calls.timeouts = FAST
    fault = shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    await shop.deliver(
        next(event for event in shop.double.objects("event") if event["type"] == "payment_intent.succeeded")
    )
    assert fault.hits == 3
    ((_, retry),) = await shop.harness.delayed()
    assert (type(retry), retry.attempt) == (FollowPayment, 2)
    await shop.harness.deliver(retry)
    assert (await shop.payment(shop.payment_intent_of(made)["id"]))["status"] == "succeeded"


async def test_the_payment_of_a_charge_is_searched_again_after_an_outage(shop: Shop) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    await shop.harness.deliver(FindPayments(object="charge", object_id="ch_1"))
    ((_, retry),) = await shop.harness.delayed()
    assert (retry.object_id, retry.attempt) == ("ch_1", 2)


async def test_an_overtaken_reading_is_repeated(shop: Shop, open_shop: Callable[..., Any]) -> None:
    made = await shop.declined_renewal()
    declined = shop.payment_intent_of(made)["id"]
    await shop.deliver_all()
    other: Shop = await open_shop()
    calls = shop.harness.context.stripe.calls
    read = calls.get

    async def overtaken(name: str, path: str, params: dict[str, Any]) -> Any:
        stale = await read(name, path, params)
        if name == "payment_intent" and stale["status"] != "succeeded":
            shop.double.simulate.recover(made["customer"])
            await other.harness.deliver(FollowPayment(payment_intent_id=declined))
        return stale

    calls.get = overtaken
    await shop.harness.deliver(FollowPayment(payment_intent_id=declined))
    assert (await shop.payment(declined))["status"] == "succeeded"
    assert (
        len(shop.harness.published_of(PaymentSucceeded)) + len(other.harness.published_of(PaymentSucceeded)) == 2
    )  # One of them is about the first period.
