"""Webhooks about payments and disputes in any order, repeated and lost: the records equal Stripe's."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.billing.disputes.models import CLOSED, Dispute
from services.billing.payments.models import Payment
from services.stripe_double import StripeApiError
from shared.documents import document_of
from shared.messages.billing.disputes import DisputeClosed, DisputeOpened
from shared.messages.billing.payments import PaymentCancelled, PaymentSucceeded
from shared.messages.mailer.mails import SendMail
from tests.billing.conftest import Shop

KINDS = ("payment_intent.", "charge.", "refund.", "invoice_payment.", "invoice.payment_action_required")
OWN_FIELDS = {"_id", "userId", "version", "toldOf", "readAt", "createdAt", "updatedAt", "paymentId"}
"""Fields that do not come from Stripe."""
PAYMENT_FIELDS = ("userId", "stpPaymentIntentId", "stpInvoiceId", "stpSubscriptionId")
"""Fields that a dispute takes from its payment."""
ACTIONS = ("decline", "recover", "month", "refund", "dispute", "close", "decided", "part", "once", "end")
HISTORIES = st.tuples(
    st.sampled_from(["pm_card_visa", "pm_card_authenticationRequired", "pm_usBankAccount_insufficientFunds", None]),
    st.lists(st.sampled_from(ACTIONS), min_size=2, max_size=8),
)
OPTIONS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ANY_ORDER = given(history=HISTORIES, seed=st.integers(0, 2**32), named=st.booleans())


@pytest.fixture
async def shop(open_shop: Callable[..., Any]) -> Shop:
    """A shop with an operators address."""
    opened_shop: Shop = await open_shop(operators_address="operators@example.com")
    return opened_shop


def disputes_of(shop: Shop, customer: str) -> list[dict[str, Any]]:
    """The disputes of a customer."""
    account = shop.double.account
    return [
        dispute for charge in account.owned("charge", customer) for dispute in account.owned("dispute", charge["id"])
    ]


async def act(shop: Shop, made: dict[str, Any], action: str) -> None:  # noqa: C901 -- a table
    """Perform an action on a subscription, if it is possible."""
    simulate = shop.double.simulate
    try:
        match action:
            case "decline" | "recover":
                getattr(simulate, action)(made["customer"])
            case "month":
                await shop.double.clock.advance(timedelta(days=32))
            case "refund":
                simulate.refund(made["id"], amount=100)
            case "dispute":
                simulate.dispute(made["id"])
            case "decided":
                simulate.close_dispute(simulate.dispute(made["id"])["id"], "won")
            case "close":
                for dispute in disputes_of(shop, made["customer"]):
                    simulate.close_dispute(dispute["id"], "lost")
            case "part":
                simulate.pay_partially(made["id"], 100)
            case "once":
                simulate.pay_once(300, customer=made["customer"])
            case "end":
                simulate.cancel(made["id"], at="now")
    except StripeApiError:
        return  # It has ended, was never paid or is already refunded.


def intents_of(shop: Shop, event: dict[str, Any]) -> set[str]:
    """The payment intents that an event is about."""
    subject = event["data"]["object"]
    if not event["type"].startswith(KINDS):
        return set()
    match subject["object"]:
        case "payment_intent":
            return {subject["id"]}
        case "invoice_payment" | "invoice":
            invoice = subject.get("invoice") or subject["id"]
            invoice_payments = shop.double.account.owned("invoice_payment", invoice)
            return {each["payment"]["payment_intent"] for each in invoice_payments}
        case _:
            return {subject["payment_intent"]}


def new_events(shop: Shop, customer: str, known: set[str]) -> list[dict[str, Any]]:
    """The new events about the payments of a customer; adds all events to ``known``."""
    intents = {intent["id"] for intent in shop.double.account.owned("payment_intent", customer)}
    found = [event for event in shop.double.objects("event") if event["id"] not in known]
    known.update(event["id"] for event in found)
    return [event for event in found if intents_of(shop, event) & intents]


async def perform_with_webhooks(shop: Shop, made: dict[str, Any], actions: list[str], random: Random) -> None:
    """Perform actions while their webhooks arrive up to three times each, in any order.

    The last webhook of each object arrives.
    """
    known: set[str] = set()
    remaining = list(actions)
    pending: list[dict[str, Any]] = []
    last: dict[str, dict[str, Any]] = {}
    new = new_events(shop, made["customer"], known)
    while remaining or pending or new:
        for event in new:
            for identifier in {*intents_of(shop, event), event["data"]["object"]["id"]}:
                last[identifier] = event
        pending += [event for event in new for _ in range(random.randrange(4))]
        if remaining and (not pending or random.random() < 0.4):
            await act(shop, made, remaining.pop(0))
        elif pending:
            await shop.deliver(pending.pop(random.randrange(len(pending))))
            if random.random() < 0.5:
                await shop.settle()
        new = new_events(shop, made["customer"], known)
    for event in random.sample([*last.values()], len(last)):
        await shop.deliver(event)
    await shop.settle()


def stripe_fields(entity: Payment | Dispute) -> dict[str, Any]:
    """The stored fields that come from Stripe."""
    return {name: value for name, value in document_of(entity).items() if name not in OWN_FIELDS}


async def check_records(shop: Shop, customer: str, user_id: str) -> Counter[str]:
    """Check that our records equal the payments and disputes in Stripe; returns the events that are due for them."""
    stripe, database, at = shop.harness.context.stripe, shop.harness.database, shop.harness.now
    due: Counter[str] = Counter()
    for intent in shop.double.account.owned("payment_intent", customer):
        stripe_payment = await stripe.payment(intent["id"])
        assert stripe_payment is not None
        found = await database["payments"].find_one({"stpPaymentIntentId": intent["id"]})
        assert found is not None, intent["status"]
        wanted = stripe_fields(Payment.first_seen("", None, stripe_payment, at=at))
        assert {name: found[name] for name in wanted} == wanted
        assert found["userId"] == user_id or stripe_payment.subscription_id is None
        due["PaymentSucceeded"] += stripe_payment.status == "succeeded"
        due["PaymentCancelled"] += stripe_payment.status == "canceled"
    for dispute in disputes_of(shop, customer):
        stripe_dispute = await stripe.dispute(dispute["id"])
        assert stripe_dispute is not None
        document = await database["disputes"].find_one({"stpDisputeId": dispute["id"]})
        assert document is not None
        found = await database["payments"].find_one({"_id": document["paymentId"]})
        assert found is not None
        expected = {
            **stripe_fields(Dispute.first_seen("", None, stripe_dispute, None, at=at)),
            **{name: found[name] for name in PAYMENT_FIELDS},
        }
        assert {name: document[name] for name in expected} == expected
        due["DisputeOpened"] += 1
        due["DisputeClosed"] += stripe_dispute.status in CLOSED
    return +due


@settings(OPTIONS, max_examples=6)
@ANY_ORDER
async def test_any_order_repetition_and_loss_of_webhooks_ends_with_equal_records(
    shop: Shop,
    history: tuple[str | None, list[str]],
    seed: int,
    named: bool,  # noqa: FBT001
) -> None:
    shop.harness.clear()
    shop._settled = 0
    email = f"{len(shop.double.objects('customer'))}@example.com"
    card, actions = history
    made = shop.double.simulate.checkout(
        shop.price, email=email, metadata={"user_id": email} if named else None, payment_method=card
    )
    await perform_with_webhooks(shop, made, actions, Random(seed))

    due = await check_records(shop, made["customer"], email if named else shop.users[email])
    announced = (PaymentSucceeded, PaymentCancelled, DisputeOpened, DisputeClosed)
    assert Counter(type(event).__name__ for event in shop.harness.published if isinstance(event, announced)) == due
    mails = Counter(mail.template for mail in shop.harness.published_of(SendMail))
    assert mails["dispute"] == due["DisputeOpened"] + due["DisputeClosed"]
    # The clock of the harness stands still, so all failures happen within a day.
    assert mails["payment-failed"] <= 1


test_any_order_repetition_and_loss_of_webhooks_ends_with_equal_records_in_many_examples = pytest.mark.slow(
    settings(OPTIONS, max_examples=40)(
        ANY_ORDER(test_any_order_repetition_and_loss_of_webhooks_ends_with_equal_records.hypothesis.inner_test)
    )
)
