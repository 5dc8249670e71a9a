"""Payments follow Stripe, whatever tells of them; a person hears of failures once a day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.billing.events.handlers import HINTS
from services.billing.stripe_api.calls import Patience
from services.stripe_double import FaultKind
from services.stripe_double.invoices import payment_intent_of
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.messages.billing.payments import (
    FindPayments,
    FollowPayment,
    ListPayments,
    PaymentActionRequired,
    PaymentCancelled,
    PaymentEvent,
    PaymentFailed,
    PaymentRefunded,
    PaymentSucceeded,
)
from shared.messages.mailer.mails import PaymentVariables, SendMail
from tests.billing.conftest import Shop
from tests.service_harness import Refused

FAST = Patience(attempt=0.3, call=1.0, portal=0.4, pause=0.01)
ADA = {"user_id": "user_ada"}
MONTH = timedelta(days=32)


def events_of_money(shop: Shop) -> list[dict[str, Any]]:
    """The events that Stripe made about payments, as they happened."""
    kinds = ("payment_intent.", "charge.", "refund.", "invoice_payment.", "invoice.payment_action_required")
    return [event for event in shop.double.objects("event") if event["type"].startswith(kinds)]


async def deliver(shop: Shop, *types: str) -> None:
    """Every event of some types, in order, and all that follows."""
    for event in shop.double.objects("event"):
        if event["type"] in types:
            await shop.deliver(event)
    await shop.settle()


def intent(shop: Shop, subscription: dict[str, Any]) -> dict[str, Any]:
    """The payment intent of a subscription's latest invoice."""
    invoice = shop.double.object("subscription", subscription["id"])["latest_invoice"]
    found = payment_intent_of(shop.double.account, shop.double.object("invoice", invoice))
    assert found is not None
    return shop.double.object("payment_intent", found["id"])


async def payment(shop: Shop, intent_id: str) -> dict[str, Any]:
    """Our document of a payment intent."""
    found = await shop.harness.database["payments"].find_one({"stpPaymentIntentId": intent_id})
    assert found is not None
    return found


def mails(shop: Shop) -> list[str | None]:
    """The links of the mails about failed payments."""
    return [
        PaymentVariables.model_validate_json(shop.harness.unseal_secret("mailer", mail.variables)).link
        for mail in shop.harness.published_of(SendMail)
        if mail.template == "payment-failed"
    ]


def facts(shop: Shop) -> list[str]:
    """What was announced of payments, by name."""
    return [type(message).__name__ for message in shop.harness.published if isinstance(message, PaymentEvent)]


async def declined_renewal(shop: Shop, **given: Any) -> dict[str, Any]:
    """A subscription whose renewal the bank declined."""
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, **given)
    shop.double.simulate.decline(made["customer"])
    await shop.double.clock.advance(MONTH)
    shop.harness.now = datetime.fromtimestamp(shop.double.clock.now(), UTC)
    return shop.double.object("subscription", made["id"])


async def test_a_payment_is_stored_with_its_walk_and_announced(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await deliver(shop, "payment_intent.succeeded")
    paid = intent(shop, made)
    record = await payment(shop, paid["id"])
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
    (said,) = shop.harness.published_of(PaymentSucceeded)
    assert (said.user_id, said.payment_id, said.stp_subscription_id, said.amount_received, said.currency) == (
        "user_ada",
        record["_id"],
        made["id"],
        500,
        "usd",
    )


async def test_a_second_delivery_reads_nothing_and_says_nothing(shop: Shop) -> None:
    await declined_renewal(shop)
    await shop.deliver_all()
    calls, said = len(shop.double.log), len(shop.harness.published)
    await shop.deliver_all()
    assert (len(shop.double.log), len(shop.harness.published)) == (calls, said)


def reads(shop: Shop, intent_id: str) -> int:
    """How often a payment intent was read."""
    return sum(call.path == f"/v1/payment_intents/{intent_id}" for call in shop.double.log if call.method == "GET")


async def paid_and_given_back(shop: Shop) -> str:
    """A payment intent that six events or more tell of: of itself, of its charge, its refunds and its invoice."""
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.refund(made["id"], amount=100)
    shop.double.simulate.refund(made["id"], amount=200)
    return str(intent(shop, made)["id"])


async def test_of_many_events_of_one_payment_that_wait_two_at_most_are_read_for(shop: Shop) -> None:
    paid = await paid_and_given_back(shop)
    events = [event for event in events_of_money(shop) if event["type"] in HINTS]
    assert len(events) >= 6
    for event in events:
        await shop.deliver(event, follow=False)
    assert reads(shop, paid) == 0
    await shop.settle()
    # One for those about the payment itself, one for those that were found to lead to it.
    assert reads(shop, paid) <= 2
    assert {row["outcome"] for row in await shop.event_rows() if row["type"] in HINTS} == {"read"}
    assert (await payment(shop, paid))["amountRefunded"] == 300
    assert facts(shop) == ["PaymentSucceeded", "PaymentRefunded"]


async def test_each_event_of_a_payment_that_comes_after_a_reading_is_read_for(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    paid = intent(shop, made)["id"]
    before = reads(shop, paid)
    shop.double.simulate.refund(made["id"], amount=100)
    await deliver(shop, "charge.refunded")
    shop.double.simulate.refund(made["id"], amount=200)
    await deliver(shop, "charge.refunded")
    assert reads(shop, paid) == before + 2
    assert [said.amount_refunded for said in shop.harness.published_of(PaymentRefunded)] == [100, 300]


async def test_readers_of_one_payment_at_once_leave_one_record_and_each_announcement_once(
    shop: Shop, open_shop: Callable[..., Any]
) -> None:
    paid = await paid_and_given_back(shop)
    other: Shop = await open_shop()
    for event in events_of_money(shop):
        await shop.deliver(event, follow=False)
    # As when a partition moves while its messages are under way.
    for kind in (FindPayments, FollowPayment):
        orders = [order for each in (shop, other) for order in each.harness.published_of(kind)]
        await asyncio.gather(*(each.harness.deliver(order) for order in orders for each in (shop, other)))
    await shop.settle()
    await other.settle()
    assert sorted(facts(shop) + facts(other)) == ["PaymentRefunded", "PaymentSucceeded"]
    assert (await payment(shop, paid))["amountRefunded"] == 300
    assert {row["outcome"] for row in await shop.event_rows()} <= {"read", "not_followed"}


async def test_the_event_says_nothing_that_is_believed(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    (event,) = [event for event in events_of_money(shop) if event["type"] == "payment_intent.succeeded"]
    event["data"]["object"] |= {"status": "canceled", "amount": 1, "customer": None}
    await shop.deliver(event)
    record = await payment(shop, intent(shop, made)["id"])
    assert (record["status"], record["amount"], record["stpCustomerId"]) == ("succeeded", 500, made["customer"])


async def test_a_trials_invoice_over_nothing_is_no_payment(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, trial_days=14)
    await shop.deliver_all()
    assert "invoice.paid" in {event["type"] for event in shop.double.objects("event")}
    assert (await shop.count("payments"), facts(shop)) == (0, [])


async def test_a_failed_renewal_is_mailed_with_a_link_to_pay(shop: Shop) -> None:
    made = await declined_renewal(shop)
    await shop.deliver_all()
    record = await payment(shop, intent(shop, made)["id"])
    assert (record["status"], record["failureCode"], record["declineCode"]) == (
        "requires_payment_method",
        "card_declined",
        "generic_decline",
    )
    assert mails(shop) == [shop.double.object("invoice", made["latest_invoice"])["hosted_invoice_url"]]
    assert shop.mails()[-1] == ("payment-failed", "ada@example.com")
    (said,) = shop.harness.published_of(PaymentFailed)
    assert (said.user_id, said.failure, said.decline) == ("user_ada", "card_declined", "generic_decline")


async def test_no_link_to_pay_and_no_address_is_kept(shop: Shop) -> None:
    await declined_renewal(shop)
    await shop.deliver_all()
    for name in await shop.harness.database.list_collection_names():
        async for document in shop.harness.database[name].find():
            for secret in (b"ada@example.com", b"invoice.stripe.com"):
                assert secret not in repr(document).encode()


async def test_failures_of_one_day_are_one_mail_and_of_the_next_another(shop: Shop) -> None:
    made = await declined_renewal(shop)
    await shop.deliver_all()
    for hours, count in ((1, 1), (22, 1), (1, 2), (1, 2)):
        shop.harness.now += timedelta(hours=hours)
        shop.double.simulate.retry_payment(made["id"])
        await shop.deliver_all()
        assert len(mails(shop)) == count, hours
    assert len(shop.harness.published_of(PaymentFailed)) == 5


async def test_failures_read_by_two_instances_at_once_are_one_mail(shop: Shop, open_shop: Callable[..., Any]) -> None:
    made = await declined_renewal(shop)
    other: Shop = await open_shop()
    other.harness.now = shop.harness.now
    first = intent(shop, made)["id"]
    # A second payment of the subscription fails too: its invoice for another item, say.
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
    assert len(mails(shop)) + len(mails(other)) == 1
    assert await shop.count("payments") == 2
    said = [*shop.harness.published_of(PaymentFailed), *other.harness.published_of(PaymentFailed)]
    assert len(said) == 2


async def test_a_failure_that_was_paid_before_anybody_looked_is_no_mail(shop: Shop) -> None:
    made = await declined_renewal(shop)
    shop.double.simulate.recover(made["customer"])
    await shop.deliver_all()
    assert (mails(shop), shop.harness.published_of(PaymentFailed)) == ([], [])
    assert (await payment(shop, intent(shop, made)["id"]))["status"] == "succeeded"


async def test_an_old_failure_seen_for_the_first_time_is_no_mail(shop: Shop) -> None:
    made = await declined_renewal(shop)
    shop.harness.now += timedelta(days=40)
    await shop.harness.deliver(FollowPayment(payment_intent_id=intent(shop, made)["id"]))
    assert mails(shop) == []


async def test_a_recovery_is_announced_once_and_clears_the_failure(shop: Shop) -> None:
    made = await declined_renewal(shop)
    await shop.deliver_all()
    shop.harness.clear()
    shop._settled = 0
    shop.double.simulate.recover(made["customer"])
    await shop.deliver_all()
    record = await payment(shop, intent(shop, made)["id"])
    assert (record["status"], record["failureCode"], record["waitsForPerson"]) == ("succeeded", None, None)
    assert facts(shop) == ["PaymentSucceeded"]


async def test_a_renewal_that_the_bank_wants_confirmed_is_mailed(shop: Shop) -> None:
    made = shop.double.simulate.checkout(
        shop.price, email="ada@example.com", metadata=ADA, payment_method="pm_card_authenticationRequired"
    )
    await shop.deliver_all()
    # At the checkout the page itself asks.
    assert (mails(shop), shop.harness.published_of(PaymentActionRequired)) == ([], [])
    shop.double.simulate.authenticate(made["id"])
    await shop.double.clock.advance(MONTH)
    shop.harness.now = datetime.fromtimestamp(shop.double.clock.now(), UTC)
    await deliver(shop, "invoice.payment_action_required")
    waiting = shop.double.object("subscription", made["id"])
    assert mails(shop) == [shop.double.object("invoice", waiting["latest_invoice"])["hosted_invoice_url"]]
    assert len(shop.harness.published_of(PaymentActionRequired)) == 1
    await shop.deliver_all()
    assert (len(mails(shop)), len(shop.harness.published_of(PaymentActionRequired))) == (1, 1)


async def test_a_bank_debit_is_processing_and_then_paid_or_returned(shop: Shop) -> None:
    good, bad = (
        shop.double.simulate.checkout(shop.price, email=f"{account}@example.com", metadata=ADA, payment_method=account)
        for account in ("pm_usBankAccount_success", "pm_usBankAccount_insufficientFunds")
    )
    await deliver(shop, "payment_intent.processing")
    assert (await payment(shop, intent(shop, good)["id"]))["status"] == "processing"
    await shop.double.clock.advance(timedelta(days=5))
    await deliver(shop, "payment_intent.succeeded", "payment_intent.payment_failed")
    assert (await payment(shop, intent(shop, good)["id"]))["status"] == "succeeded"
    assert (await payment(shop, intent(shop, bad)["id"]))["declineCode"] == "insufficient_funds"
    assert len(mails(shop)) == 1


async def test_a_payment_given_up_is_announced(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, payment_method=None)
    await shop.double.clock.advance(timedelta(days=2))
    await shop.deliver_all()
    record = await payment(shop, intent(shop, made)["id"])
    assert (record["status"], record["cancelledAt"] is not None) == ("canceled", True)
    assert (facts(shop), len(shop.harness.published_of(PaymentCancelled))) == (["PaymentCancelled"], 1)


@pytest.mark.parametrize("told", ["charge.refunded", "refund.created"])
async def test_refunds_are_counted_together(shop: Shop, told: str) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    for amount, total in ((200, 200), (300, 500)):
        shop.double.simulate.refund(made["id"], amount=amount)
        await deliver(shop, told)
        assert (await payment(shop, intent(shop, made)["id"]))["amountRefunded"] == total
    assert [said.amount_refunded for said in shop.harness.published_of(PaymentRefunded)] == [200, 500]


async def test_a_refund_that_failed_is_taken_back(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    refund = shop.double.simulate.refund(made["id"], amount=200)
    await shop.deliver_all()
    shop.double.simulate.fail_refund(refund["id"])
    await deliver(shop, "refund.failed")
    assert (await payment(shop, intent(shop, made)["id"]))["amountRefunded"] == 0
    assert len(shop.harness.published_of(PaymentRefunded)) == 1


async def test_an_invoice_paid_in_parts_has_a_payment_for_each(shop: Shop) -> None:
    made = await declined_renewal(shop)
    part = shop.double.simulate.pay_partially(made["id"], 200)
    shop.double.simulate.recover(made["customer"])
    await shop.deliver_all()
    records = [await payment(shop, part["id"]), await payment(shop, intent(shop, made)["id"])]
    assert [(each["amountReceived"], each["stpInvoiceId"], each["stpSubscriptionId"]) for each in records] == [
        (200, made["latest_invoice"], made["id"]),
        (300, made["latest_invoice"], made["id"]),
    ]


async def test_a_payment_tied_to_an_invoice_later_is_found_again(shop: Shop) -> None:
    made = await declined_renewal(shop)
    part = shop.double.simulate.pay_once(200, customer=made["customer"])
    await shop.harness.deliver(FollowPayment(payment_intent_id=part["id"]))
    assert (await payment(shop, part["id"]))["stpSubscriptionId"] is None
    await shop.post(f"/v1/invoices/{made['latest_invoice']}/attach_payment", payment_intent=part["id"])
    await deliver(shop, "invoice_payment.paid")
    assert (await payment(shop, part["id"]))["stpSubscriptionId"] == made["id"]


async def test_a_payment_outside_of_subscriptions_makes_nobody_a_user_and_writes_to_nobody(shop: Shop) -> None:
    customer = await shop.post("/v1/customers", email="bob@example.com")
    nobodys = shop.double.simulate.pay_once(500, currency="jpy")
    bobs = shop.double.simulate.pay_once(
        700, customer=customer["id"], payment_method="pm_card_chargeDeclinedInsufficientFunds"
    )
    adas = shop.double.simulate.pay_once(900, metadata=ADA)
    await shop.deliver_all()
    assert [(await payment(shop, each["id"]))["userId"] for each in (nobodys, bobs, adas)] == [None, None, "user_ada"]
    assert (shop.harness.published_of(EnsureUser), shop.mails()) == ([], [])
    assert sorted(facts(shop)) == ["PaymentFailed", "PaymentSucceeded", "PaymentSucceeded"]


async def test_a_subscriptions_payment_waits_with_its_news_until_its_user_is_known(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    for event in events_of_money(shop):
        await shop.deliver(event)
    paid = intent(shop, made)["id"]
    assert (await payment(shop, paid))["userId"] is None
    assert facts(shop) == []
    (asked,) = shop.harness.published_of(EnsureUser)
    assert (asked.reference, asked.email) == (paid, "ada@example.com")
    await shop.settle()
    user_id = shop.users["ada@example.com"]
    assert (await payment(shop, paid))["userId"] == user_id
    assert [said.user_id for said in shop.harness.published_of(PaymentSucceeded)] == [user_id]
    assert await shop.count("provider_mappings") == 1


async def test_an_answer_about_a_payment_that_is_not_here_changes_nothing(shop: Shop) -> None:
    await shop.harness.deliver(UserEnsured(reference="pi_elsewhere", user_id="user_ada"))
    assert (await shop.count("provider_mappings"), shop.harness.published) == (0, [])


async def test_a_payment_that_stripe_does_not_have_is_nothing(shop: Shop) -> None:
    await shop.harness.deliver(FollowPayment(payment_intent_id="pi_elsewhere"))
    await shop.harness.deliver(FindPayments(object="charge", object_id="ch_elsewhere"))
    assert (await shop.count("payments"), shop.harness.published) == (0, [])


async def test_the_customers_deletion_leaves_its_payments(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await shop.deliver_all()
    shop.double.simulate.delete_customer(made["customer"])
    paid = intent(shop, made)["id"]
    await shop.harness.deliver(FollowPayment(payment_intent_id=paid))
    assert (await payment(shop, paid))["userId"] == shop.users["ada@example.com"]


async def test_a_thin_event_is_followed_like_its_snapshot(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    paid = intent(shop, made)["id"]
    thin = {
        "id": "evt_test_1",
        "object": "v2.core.event",
        "type": "v1.payment_intent.succeeded",
        "created": "2026-11-21T06:05:00.000Z",
        "livemode": False,
        "related_object": {"id": paid, "type": "payment_intent", "url": f"/v1/payment_intents/{paid}"},
    }
    await shop.deliver_thin(thin)
    assert (await payment(shop, paid))["status"] == "succeeded"
    await shop.deliver_thin({**thin, "id": "evt_test_2", "livemode": True})
    await shop.deliver_thin({**thin, "id": "evt_test_3", "type": "v2.core.account.updated", "related_object": None})
    assert len(shop.harness.published_of(PaymentSucceeded)) == 1


async def test_a_payment_waits_while_stripe_is_away(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.harness.context.stripe.calls.patience = FAST
    fault = shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    await shop.deliver(next(event for event in events_of_money(shop) if event["type"] == "payment_intent.succeeded"))
    assert fault.hits == 3
    ((_, again),) = await shop.harness.delayed()
    assert (type(again), again.attempt) == (FollowPayment, 2)
    await shop.harness.deliver(again)
    assert (await payment(shop, intent(shop, made)["id"]))["status"] == "succeeded"


async def test_a_way_back_from_a_charge_waits_while_stripe_is_away(shop: Shop) -> None:
    shop.harness.context.stripe.calls.patience = FAST
    shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    await shop.harness.deliver(FindPayments(object="charge", object_id="ch_1"))
    ((_, again),) = await shop.harness.delayed()
    assert (again.object_id, again.attempt) == ("ch_1", 2)


async def test_a_reading_that_was_overtaken_is_made_again(shop: Shop, open_shop: Callable[..., Any]) -> None:
    made = await declined_renewal(shop)
    failing = intent(shop, made)["id"]
    await shop.deliver_all()
    other: Shop = await open_shop()
    calls = shop.harness.context.stripe.calls
    read = calls.get

    async def overtaken(name: str, path: str, params: dict[str, Any]) -> Any:
        stale = await read(name, path, params)
        if name == "payment_intent" and stale["status"] != "succeeded":
            shop.double.simulate.recover(made["customer"])
            await other.harness.deliver(FollowPayment(payment_intent_id=failing))
        return stale

    calls.get = overtaken
    await shop.harness.deliver(FollowPayment(payment_intent_id=failing))
    assert (await payment(shop, failing))["status"] == "succeeded"
    assert (
        len(shop.harness.published_of(PaymentSucceeded)) + len(other.harness.published_of(PaymentSucceeded)) == 2
    )  # and the first period's


class TestList:
    async def listed(self, shop: Shop, **asked: Any) -> list[dict[str, Any]]:
        page = await shop.harness.deliver(ListPayments(**asked))
        payments: list[dict[str, Any]] = page["payments"]
        return payments

    async def test_pages_are_newest_first_and_whole(self, shop: Shop) -> None:
        made = []
        for amount in range(1, 8):
            made.append(shop.double.simulate.pay_once(amount, metadata=ADA)["id"])
            if amount % 3 == 0:
                await shop.a_second_later()
        await shop.deliver_all()
        seen: list[str] = []
        cursor = None
        while cursor is not None or not seen:
            page = await shop.harness.deliver(ListPayments(limit=2, cursor=cursor))
            seen += [each["stp_payment_intent_id"] for each in page["payments"]]
            cursor = page["next_cursor"]
        assert sorted(seen) == sorted(made)
        whole = await self.listed(shop)
        assert [each["stp_payment_intent_id"] for each in whole] == seen
        times = [each["created_at"] for each in whole]
        assert times == sorted(times, reverse=True)

    async def test_by_user_and_status(self, shop: Shop) -> None:
        made = await declined_renewal(shop)
        shop.double.simulate.pay_once(100, metadata={"user_id": "user_bob"})
        await shop.deliver_all()
        assert len(await self.listed(shop)) == 3
        assert {each["user_id"] for each in await self.listed(shop, user_id="user_ada")} == {"user_ada"}
        (failing,) = await self.listed(shop, user_id="user_ada", status="requires_payment_method")
        assert (failing["stp_subscription_id"], failing["decline_code"]) == (made["id"], "generic_decline")
        assert await self.listed(shop, user_id="user_eve") == []

    async def test_what_a_customer_paid_before_it_was_known_is_the_users_too(self, shop: Shop) -> None:
        customer = await shop.post("/v1/customers", email="ada@example.com")
        early = shop.double.simulate.pay_once(100, customer=customer["id"])
        await shop.deliver_all()
        shop.double.simulate.checkout(shop.price, customer=customer["id"], metadata=ADA)
        await shop.deliver_all()
        (found,) = [
            each for each in await self.listed(shop, user_id="user_ada") if each["stp_payment_intent_id"] == early["id"]
        ]
        assert found["user_id"] == "user_ada"

    @pytest.mark.parametrize("cursor", ["x", "é", "AAAA", "OTk5OTk5OTk5OTk5OTk5OTk5OS54", "LnA", "$ne", "bmFuLng"])
    async def test_a_cursor_of_nobodys_is_refused(self, shop: Shop, cursor: str) -> None:
        with pytest.raises(Refused) as refused:
            await shop.harness.deliver(ListPayments(cursor=cursor))
        assert refused.value.code == "invalid_cursor"

    @pytest.mark.parametrize("asked", [{"limit": 0}, {"limit": 501}, {"user_id": ""}, {"cursor": ""}])
    def test_what_cannot_be_is_not_asked(self, asked: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="validation error"):
            ListPayments(**asked)
