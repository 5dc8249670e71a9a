"""Mails about failed and unconfirmed payments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.messages.billing.payments import (
    FollowPayment,
    PaymentActionRequired,
    PaymentFailed,
)
from shared.messages.mailer.mails import PaymentVariables, ReceiptVariables, SendMail
from tests.billing.conftest import ADA, MONTH, Shop


def links(shop: Shop) -> list[str | None]:
    """The payment links in the mails about failed payments."""
    return [
        PaymentVariables.model_validate_json(shop.harness.unseal_secret("mailer", mail.variables)).link
        for mail in shop.harness.published_of(SendMail)
        if mail.template == "payment-failed"
    ]


async def test_a_declined_renewal_causes_a_mail_with_a_payment_link(shop: Shop) -> None:
    made = await shop.declined_renewal()
    await shop.deliver_all()
    record = await shop.payment(shop.payment_intent_of(made)["id"])
    assert (record["status"], record["failureCode"], record["declineCode"]) == (
        "requires_payment_method",
        "card_declined",
        "generic_decline",
    )
    assert links(shop) == [shop.double.object("invoice", made["latest_invoice"])["hosted_invoice_url"]]
    assert shop.mails()[-1] == ("payment-failed", "ada@example.com")
    (event,) = shop.harness.published_of(PaymentFailed)
    assert (event.user_id, event.failure, event.decline) == ("user_ada", "card_declined", "generic_decline")


async def test_payment_links_and_addresses_are_not_stored(shop: Shop) -> None:
    await shop.declined_renewal()
    await shop.deliver_all()
    for name in await shop.harness.database.list_collection_names():
        async for document in shop.harness.database[name].find():
            for secret in (b"ada@example.com", b"invoice.stripe.com"):
                assert secret not in repr(document).encode()


async def test_failures_within_a_day_cause_one_mail(shop: Shop) -> None:
    made = await shop.declined_renewal()
    await shop.deliver_all()
    for hours, count in ((1, 1), (22, 1), (1, 2), (1, 2)):
        shop.harness.now += timedelta(hours=hours)
        shop.double.simulate.retry_payment(made["id"])
        await shop.deliver_all()
        assert len(links(shop)) == count, hours
    assert len(shop.harness.published_of(PaymentFailed)) == 5


async def test_failures_handled_by_two_instances_at_once_cause_one_mail(
    shop: Shop, open_shop: Callable[..., Any]
) -> None:
    made = await shop.declined_renewal()
    other: Shop = await open_shop()
    other.harness.now = shop.harness.now
    first = shop.payment_intent_of(made)["id"]
    # A second payment of the same invoice fails too.
    second = shop.double.simulate.pay_once(
        300, customer=made["customer"], payment_method="pm_card_chargeDeclinedInsufficientFunds"
    )["id"]
    account = shop.double.account
    with account.change():
        account.put(
            account.new(
                "invoice_payment",
                amount_paid=None,
                amount_requested=300,
                currency="usd",
                invoice=made["latest_invoice"],
                is_default=False,
                payment={"payment_intent": second, "type": "payment_intent"},
                status="open",
                status_transitions={"canceled_at": None, "paid_at": None},
            )
        )
    await asyncio.gather(
        *(
            harness.deliver(FollowPayment(payment_intent_id=intent_id))
            for harness in (shop.harness, other.harness)
            for intent_id in (first, second)
        )
    )
    assert len(links(shop)) + len(links(other)) == 1
    assert await shop.count("payments") == 2
    failures = [*shop.harness.published_of(PaymentFailed), *other.harness.published_of(PaymentFailed)]
    assert len(failures) == 2


async def test_a_failure_that_was_paid_before_the_reading_causes_no_mail(shop: Shop) -> None:
    made = await shop.declined_renewal()
    shop.double.simulate.recover(made["customer"])
    await shop.deliver_all()
    assert (links(shop), shop.harness.published_of(PaymentFailed)) == ([], [])
    assert (await shop.payment(shop.payment_intent_of(made)["id"]))["status"] == "succeeded"


async def test_an_old_failure_that_is_first_seen_causes_no_mail(shop: Shop) -> None:
    made = await shop.declined_renewal()
    shop.harness.now += timedelta(days=40)
    await shop.harness.deliver(FollowPayment(payment_intent_id=shop.payment_intent_of(made)["id"]))
    assert links(shop) == []


async def test_a_renewal_that_needs_confirmation_causes_a_mail(shop: Shop) -> None:
    made = shop.double.simulate.checkout(
        shop.price, email="ada@example.com", metadata=ADA, payment_method="pm_card_authenticationRequired"
    )
    await shop.deliver_all()
    # The checkout page asks for the confirmation of a first payment.
    assert (links(shop), shop.harness.published_of(PaymentActionRequired)) == ([], [])
    shop.double.simulate.authenticate(made["id"])
    await shop.double.clock.advance(MONTH)
    shop.harness.now = datetime.fromtimestamp(shop.double.clock.now(), UTC)
    await shop.deliver_types("invoice.payment_action_required")
    waiting = shop.double.object("subscription", made["id"])
    assert links(shop) == [shop.double.object("invoice", waiting["latest_invoice"])["hosted_invoice_url"]]
    assert len(shop.harness.published_of(PaymentActionRequired)) == 1
    await shop.deliver_all()
    assert (len(links(shop)), len(shop.harness.published_of(PaymentActionRequired))) == (1, 1)


def receipts(shop: Shop) -> list[ReceiptVariables]:
    """The variables of the receipts."""
    return [
        ReceiptVariables.model_validate_json(shop.harness.unseal_secret("mailer", mail.variables))
        for mail in shop.harness.published_of(SendMail)
        if mail.template == "receipt"
    ]


async def test_a_receipt_is_mailed_once_for_each_paid_invoice(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(receipts=True)
    await shop.read_catalog()
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    for _ in range(2):
        await shop.deliver_all()
        await shop.harness.deliver(FollowPayment(payment_intent_id=shop.payment_intent_of(made)["id"]))
    [receipt] = receipts(shop)
    assert (receipt.amount, receipt.plan) == ("5.00 USD", "Beak")
    assert receipt.link == shop.double.object("invoice", made["latest_invoice"])["hosted_invoice_url"]
    await shop.double.clock.advance(MONTH)
    shop.harness.now = shop.double.clock.time
    await shop.deliver_all()
    assert len(receipts(shop)) == 2


async def test_a_free_trial_causes_no_receipt(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(receipts=True)
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, trial_days=14)
    await shop.deliver_all()
    assert receipts(shop) == []


async def test_receipts_are_off_by_default(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    assert receipts(shop) == []
