"""The rules about payments and disputes alone: fences, news, who is written to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.billing.disputes.models import Dispute
from services.billing.payments.models import Payment
from services.billing.stripe_api.models import StripeCustomer, StripeDispute, StripeInvoice, StripePayment

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
DISPUTED = StripeDispute(
    id="dp_1",
    status="needs_response",
    reason="fraudulent",
    amount=500,
    currency="usd",
    charge_id="ch_1",
    customer_id="cus_1",
    payment_intent_id="pi_1",
    respond_by=None,
    created=NOW,
    livemode=False,
)


def seen(truth: StripePayment, user_id: str | None = "user_ada") -> Payment:
    return Payment.first_seen("payment_1", user_id, truth, at=NOW)


def test_a_reading_begun_earlier_never_overwrites_a_later_one() -> None:
    held = seen(PAID)
    assert held.follow("user_ada", FAILED, read_at=NOW - timedelta(milliseconds=1), at=NOW) is held
    dispute = Dispute.first_seen("dispute_1", "user_ada", DISPUTED, held, at=NOW)
    lost = replace(DISPUTED, status="lost")
    assert dispute.follow("user_ada", lost, held, read_at=NOW - timedelta(seconds=1), at=NOW) is dispute


def test_a_reading_that_says_the_same_is_no_update() -> None:
    later = NOW + timedelta(hours=1)
    held = seen(PAID)
    same = held.follow("user_ada", PAID, read_at=later, at=later)
    assert (same.updated_at, same.read_at, same.news(held)) == (NOW, later, [])
    assert held.follow("user_ada", FAILED, read_at=later, at=later).updated_at == later


def test_a_user_once_known_stays_known() -> None:
    assert seen(PAID).follow(None, PAID, read_at=NOW, at=NOW).user_id == "user_ada"


def test_whose_it_is_says_first_the_subscription_then_the_payment_then_the_customer() -> None:
    of_customer = replace(PAID, customer=replace(CUSTOMER, user_id="c"))
    of_payment = replace(of_customer, user_id="p")
    of_subscription = replace(of_payment, invoice=replace(INVOICE, user_id="s"))
    claims = [truth.claimed_user_id for truth in (PAID, of_customer, of_payment, of_subscription)]
    assert claims == [None, "c", "p", "s"]


@pytest.mark.parametrize(
    ("truth", "waits"),
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
def test_a_person_is_waited_for_after_a_failure_and_for_a_renewals_confirmation(
    truth: StripePayment, waits: str | None
) -> None:
    assert truth.waiting_for_person == waits


def test_a_mail_is_due_once_for_an_attempt_of_a_subscription_that_is_not_old() -> None:
    assert seen(FAILED).mail_due(FAILED, at=NOW)
    assert not seen(FAILED).told().mail_due(FAILED, at=NOW)
    assert not seen(FAILED).mail_due(FAILED, at=NOW + timedelta(days=31))
    outside = replace(FAILED, invoice=None)
    assert not seen(outside).mail_due(outside, at=NOW)
    again = replace(FAILED, charge_id="ch_2")
    assert seen(FAILED).told().follow("user_ada", again, read_at=NOW, at=NOW).mail_due(again, at=NOW)


def test_nothing_of_a_subscriptions_payment_is_news_before_its_user_is_known_and_then_all_of_it() -> None:
    refunded = replace(PAID, amount_refunded=200)
    waiting = seen(refunded, None)
    assert waiting.news(None) == []
    known = waiting.follow("user_ada", refunded, read_at=NOW, at=NOW)
    assert [type(event).__name__ for event in known.news(waiting)] == ["PaymentSucceeded", "PaymentRefunded"]


def test_a_refund_that_failed_and_one_made_anew_are_told_by_what_is_given_back_in_all() -> None:
    held = seen(replace(PAID, amount_refunded=200))
    back = held.follow("user_ada", PAID, read_at=NOW, at=NOW)
    assert back.news(held) == []
    assert len(back.follow("user_ada", replace(PAID, amount_refunded=300), read_at=NOW, at=NOW).news(back)) == 1
