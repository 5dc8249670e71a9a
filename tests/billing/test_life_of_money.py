"""Whatever comes of the webhooks about money, in whatever order, however often: our records are Stripe's."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.billing.disputes.models import CLOSED, Dispute
from services.billing.payments.models import Payment
from services.billing.stripe_api.payments import read_dispute, read_payment
from services.stripe_double import StripeApiError
from shared.documents import document_of
from shared.messages.billing.disputes import DisputeClosed, DisputeOpened
from shared.messages.billing.payments import PaymentCancelled, PaymentSucceeded
from shared.messages.mailer.mails import SendMail
from tests.billing.conftest import Shop

KINDS = ("payment_intent.", "charge.", "refund.", "invoice_payment.", "invoice.payment_action_required")
OURS = {"_id", "userId", "version", "toldOf", "readAt", "createdAt", "updatedAt", "paymentId"}
"""What Stripe says nothing of."""
TIED = ("userId", "stpPaymentIntentId", "stpInvoiceId", "stpSubscriptionId")
"""What a dispute has of its payment."""
TURNS = ("decline", "recover", "month", "refund", "dispute", "close", "decided", "part", "once", "end")
LIVES = st.tuples(
    st.sampled_from(["pm_card_visa", "pm_card_authenticationRequired", "pm_usBankAccount_insufficientFunds", None]),
    st.lists(st.sampled_from(TURNS), min_size=2, max_size=8),
)


@pytest.fixture
async def shop(open_shop: Callable[..., Any]) -> Shop:
    """A shop whose operators have an address."""
    opened_shop: Shop = await open_shop(operators_address="operators@example.com")
    return opened_shop


def disputes_of(shop: Shop, customer: str) -> list[dict[str, Any]]:
    """What a customer asked its bank to give back."""
    account = shop.double.account
    return [
        dispute for charge in account.owned("charge", customer) for dispute in account.owned("dispute", charge["id"])
    ]


async def turn(shop: Shop, made: dict[str, Any], what: str) -> None:  # noqa: C901 -- a table
    """Play one turn of a life, if it is still possible."""
    simulate = shop.double.simulate
    try:
        match what:
            case "decline" | "recover":
                getattr(simulate, what)(made["customer"])
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
        return  # it is over, was never paid, is refunded already


def intents_of(shop: Shop, event: dict[str, Any]) -> set[str]:
    """The payment intents that an event has something to say about."""
    subject = event["data"]["object"]
    if not event["type"].startswith(KINDS):
        return set()
    match subject["object"]:
        case "payment_intent":
            return {subject["id"]}
        case "invoice_payment" | "invoice":
            invoice = subject.get("invoice") or subject["id"]
            ties = shop.double.account.owned("invoice_payment", invoice)
            return {tie["payment"]["payment_intent"] for tie in ties}
        case _:
            return {subject["payment_intent"]}


def news(shop: Shop, customer: str, known: set[str]) -> list[dict[str, Any]]:
    """The events about one customer's money that are not known yet."""
    mine = {intent["id"] for intent in shop.double.account.owned("payment_intent", customer)}
    found = [event for event in shop.double.objects("event") if event["id"] not in known]
    known.update(event["id"] for event in found)
    return [event for event in found if intents_of(shop, event) & mine]


async def in_some_order(shop: Shop, made: dict[str, Any], turns: list[str], dice: random.Random) -> None:
    """Play a life while its webhooks arrive none to three times each, in any order; each object's last one arrives."""
    known: set[str] = set()
    steps = list(turns)
    pending: list[dict[str, Any]] = []
    last: dict[str, dict[str, Any]] = {}
    fresh = news(shop, made["customer"], known)
    while steps or pending or fresh:
        for event in fresh:
            for identifier in {*intents_of(shop, event), event["data"]["object"]["id"]}:
                last[identifier] = event
        pending += [event for event in fresh for _ in range(dice.randrange(4))]
        if steps and (not pending or dice.random() < 0.4):
            await turn(shop, made, steps.pop(0))
        elif pending:
            await shop.deliver(pending.pop(dice.randrange(len(pending))))
            if dice.random() < 0.5:
                await shop.settle()
        fresh = news(shop, made["customer"], known)
    for event in dice.sample([*last.values()], len(last)):
        await shop.deliver(event)
    await shop.settle()


def facts(entity: Payment | Dispute) -> dict[str, Any]:
    """What our record of it would be, as far as Stripe knows."""
    return {name: value for name, value in document_of(entity).items() if name not in OURS}


async def as_stripe_says(shop: Shop, customer: str, user_id: str) -> Counter[str]:
    """Our records of a customer's money are Stripe's; returns what must have been announced of them."""
    calls, database, at = shop.harness.context.stripe.calls, shop.harness.database, shop.harness.now
    due: Counter[str] = Counter()
    for intent in shop.double.account.owned("payment_intent", customer):
        truth = await read_payment(intent["id"], calls)
        assert truth is not None
        found = await database["payments"].find_one({"stpPaymentIntentId": intent["id"]})
        assert found is not None, intent["status"]
        wanted = facts(Payment.first_seen("", None, truth, at=at))
        assert {name: found[name] for name in wanted} == wanted
        assert found["userId"] == user_id or truth.subscription_id is None
        due["PaymentSucceeded"] += truth.status == "succeeded"
        due["PaymentCancelled"] += truth.status == "canceled"
    for dispute in disputes_of(shop, customer):
        told = await read_dispute(dispute["id"], calls)
        assert told is not None
        document = await database["disputes"].find_one({"stpDisputeId": dispute["id"]})
        assert document is not None
        found = await database["payments"].find_one({"_id": document["paymentId"]})
        assert found is not None
        expected = {**facts(Dispute.first_seen("", None, told, None, at=at)), **{name: found[name] for name in TIED}}
        assert {name: document[name] for name in expected} == expected
        due["DisputeOpened"] += 1
        due["DisputeClosed"] += told.status in CLOSED
    return +due


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(life=LIVES, seed=st.integers(0, 2**32), named=st.booleans())
async def test_any_order_repetition_and_loss_ends_with_stripes_own_records_and_one_mail_an_occasion(
    shop: Shop,
    life: tuple[str | None, list[str]],
    seed: int,
    named: bool,  # noqa: FBT001
) -> None:
    shop.harness.clear()
    shop._settled = 0
    email = f"{len(shop.double.objects('customer'))}@example.com"
    card, turns = life
    made = shop.double.simulate.checkout(
        shop.price, email=email, metadata={"user_id": email} if named else None, payment_method=card
    )
    await in_some_order(shop, made, turns, random.Random(seed))

    due = await as_stripe_says(shop, made["customer"], email if named else shop.users[email])
    announced = (PaymentSucceeded, PaymentCancelled, DisputeOpened, DisputeClosed)
    assert Counter(type(said).__name__ for said in shop.harness.published if isinstance(said, announced)) == due
    mails = Counter(mail.template for mail in shop.harness.published_of(SendMail))
    assert mails["dispute"] == due["DisputeOpened"] + due["DisputeClosed"]
    # The harness's clock stands still: all of a life is one day.
    assert mails["payment-failed"] <= 1
