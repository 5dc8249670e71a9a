from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.billing.payments.models import Payment
from services.billing.stripe_api.models import StripeCustomer
from services.billing.stripe_api.payment_models import StripeInvoice, StripePayment

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
CUSTOMER = StripeCustomer(id="cus_1", email="ada@example.com", user_id=None, deleted=False)
INVOICE = StripeInvoice(id="in_1", subscription_id="sub_1", user_id=None, renewal=True, payment_link=None)
PAID = StripePayment(
    id="pi_1",
    customer=CUSTOMER,
    status="succeeded",
    amount=500,
    amount_received=500,
    amount_refunded=0,
    currency="usd",
    charge_id="ch_1",
    failure_code=None,
    decline_code=None,
    attempted_at=NOW,
    disputed=False,
    user_id=None,
    invoice=INVOICE,
    created=NOW,
    canceled_at=None,
    livemode=False,
)
FAILED = replace(PAID, status="requires_payment_method", amount_received=0, failure_code="card_declined")


def stored(stripe_payment: StripePayment, user_id: str | None = "user_ada") -> Payment:
    return Payment.first_seen("payment_1", user_id, stripe_payment, at=NOW)


def test_an_earlier_reading_changes_nothing() -> None:
    payment = stored(PAID)
    assert payment.follow("user_ada", FAILED, read_at=NOW - timedelta(milliseconds=1), at=NOW) is payment


def test_an_equal_reading_updates_read_at_only() -> None:
    later = NOW + timedelta(hours=1)
    payment = stored(PAID)
    same = payment.follow("user_ada", PAID, read_at=later, at=later)
    assert (same.updated_at, same.read_at, same.events_since(payment, attempted_at=NOW)) == (NOW, later, [])
    assert payment.follow("user_ada", FAILED, read_at=later, at=later).updated_at == later


def test_a_known_user_is_kept() -> None:
    assert stored(PAID).follow(None, PAID, read_at=NOW, at=NOW).user_id == "user_ada"


def test_the_user_comes_from_the_subscription_then_payment_then_customer() -> None:
    of_customer = replace(PAID, customer=replace(CUSTOMER, user_id="c"))
    of_payment = replace(of_customer, user_id="p")
    of_subscription = replace(of_payment, invoice=replace(INVOICE, user_id="s"))
    users = [payment.metadata_user_id for payment in (PAID, of_customer, of_payment, of_subscription)]
    assert users == [None, "c", "p", "s"]


@pytest.mark.parametrize(
    ("payment", "attempt"),
    [
        (PAID, None),
        (FAILED, "failed:ch_1"),
        (replace(FAILED, charge_id=None), "failed:card_declined"),
        (replace(FAILED, failure_code=None), None),
        (replace(FAILED, status="canceled"), None),
        (replace(FAILED, status="requires_action"), "action:ch_1"),
        (replace(FAILED, status="requires_action", invoice=replace(INVOICE, renewal=False)), None),
        (replace(FAILED, status="requires_action", invoice=None), None),
    ],
)
def test_failures_and_unconfirmed_renewals_wait_for_the_person(payment: StripePayment, attempt: str | None) -> None:
    assert payment.waits_for_person == attempt


def test_one_mail_is_due_for_each_recent_attempt_of_a_subscription() -> None:
    assert stored(FAILED).mail_due(FAILED, at=NOW)
    assert not stored(FAILED).mail_considered().mail_due(FAILED, at=NOW)
    assert not stored(FAILED).mail_due(FAILED, at=NOW + timedelta(days=31))
    without_subscription = replace(FAILED, invoice=None)
    assert not stored(without_subscription).mail_due(without_subscription, at=NOW)
    second = replace(FAILED, charge_id="ch_2")
    assert stored(FAILED).mail_considered().follow("user_ada", second, read_at=NOW, at=NOW).mail_due(second, at=NOW)


def test_a_subscriptions_payment_is_announced_once_its_user_is_known() -> None:
    refunded = replace(PAID, amount_refunded=200)
    waiting = stored(refunded, None)
    assert waiting.events_since(None, attempted_at=NOW) == []
    known = waiting.follow("user_ada", refunded, read_at=NOW, at=NOW)
    assert [type(event).__name__ for event in known.events_since(waiting, attempted_at=NOW)] == [
        "PaymentSucceeded",
        "PaymentRefunded",
    ]


def test_a_failed_refund_is_not_announced_and_a_later_one_is() -> None:
    refunded = stored(replace(PAID, amount_refunded=200))
    failed = refunded.follow("user_ada", PAID, read_at=NOW, at=NOW)
    assert failed.events_since(refunded, attempted_at=NOW) == []
    assert (
        len(
            failed.follow("user_ada", replace(PAID, amount_refunded=300), read_at=NOW, at=NOW).events_since(
                failed, attempted_at=NOW
            )
        )
        == 1
    )
