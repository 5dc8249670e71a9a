"""Cards, payment intents, refunds, disputes, and the walk from money to subscription."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from tests.stripe_double.shop import USES_STRIPE, Shop, open_shop

pytestmark = USES_STRIPE


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


async def payment_of(shop: Shop, subscription: Any) -> Any:
    """The payment intent of a subscription's latest invoice."""
    paid = await shop.api.invoice_payments.list_async({"invoice": subscription.latest_invoice})
    return await shop.api.payment_intents.retrieve_async(paid.data[0].payment.payment_intent)


class TestPaymentMethods:
    async def test_one_card_has_one_fingerprint_whoever_brings_it(self, shop: Shop) -> None:
        cards = [
            await shop.api.payment_methods.attach_async("pm_card_visa", {"customer": (await shop.customer(None)).id})
            for _ in range(2)
        ]
        other = await shop.api.payment_methods.create_async({"type": "card", "card": {"token": "tok_mastercard"}})
        assert cards[0].id != cards[1].id
        assert cards[0].card.fingerprint == cards[1].card.fingerprint != other.card.fingerprint

    async def test_a_card_that_declines_at_once_cannot_be_kept(self, shop: Shop) -> None:
        customer = await shop.customer(None)
        with pytest.raises(stripe.CardError) as refused:
            await shop.api.payment_methods.attach_async("pm_card_chargeDeclined", {"customer": customer.id})
        assert (refused.value.code, refused.value.error.decline_code) == ("card_declined", "generic_decline")

    async def test_a_detached_card_is_nobodys_default(self, shop: Shop) -> None:
        customer = await shop.customer()
        card = customer.invoice_settings.default_payment_method
        await shop.api.payment_methods.detach_async(card)
        again = await shop.api.customers.retrieve_async(customer.id)
        assert again.invoice_settings.default_payment_method is None
        assert (await shop.api.customers.payment_methods.list_async(customer.id)).data == []

    async def test_a_card_belongs_to_one_customer(self, shop: Shop) -> None:
        card = (await shop.customer()).invoice_settings.default_payment_method
        other = await shop.customer(None)
        with pytest.raises(stripe.InvalidRequestError, match="already been attached"):
            await shop.api.payment_methods.attach_async(card, {"customer": other.id})


class TestPaymentIntents:
    async def open_payment(self, shop: Shop) -> Any:
        customer = await shop.customer(None)
        subscription = await shop.subscription(customer.id, payment_behavior="default_incomplete")
        return subscription, await payment_of(shop, subscription)

    async def test_a_declined_confirmation_is_a_402_that_stays_on_record(self, shop: Shop) -> None:
        subscription, intent = await self.open_payment(shop)
        with pytest.raises(stripe.CardError) as refused:
            await shop.api.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_chargeDeclined"})
        assert refused.value.error.payment_intent.id == intent.id
        again = await shop.api.payment_intents.retrieve_async(intent.id)
        assert (again.status, again.last_payment_error.code) == ("requires_payment_method", "card_declined")
        charge = await shop.api.charges.retrieve_async(again.latest_charge)
        assert (charge.status, charge.paid, charge.outcome.reason) == ("failed", False, "generic_decline")
        assert {"charge.failed", "payment_intent.payment_failed", "invoice.payment_failed"} <= set(shop.types())
        assert (await shop.read(subscription)).status == "incomplete"

    async def test_a_good_card_after_a_bad_one_makes_it_active(self, shop: Shop) -> None:
        subscription, intent = await self.open_payment(shop)
        with pytest.raises(stripe.CardError):
            await shop.api.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_chargeDeclined"})
        paid = await shop.api.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
        assert (paid.status, paid.amount_received, paid.last_payment_error) == ("succeeded", 1000, None)
        assert (await shop.read(subscription)).status == "active"
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await shop.api.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
        assert refused.value.code == "payment_intent_unexpected_state"

    async def test_a_card_that_asks_the_customer_waits_for_the_customer(self, shop: Shop) -> None:
        customer = await shop.customer("pm_card_authenticationRequired")
        subscription = await shop.subscription(customer.id)
        assert subscription.status == "incomplete"
        assert (await payment_of(shop, subscription)).next_action.type == "use_stripe_sdk"
        assert {"payment_intent.requires_action", "invoice.payment_action_required"} <= set(shop.types())
        shop.double.simulate.authenticate(subscription.id)
        assert (await shop.read(subscription)).status == "active"

    async def test_an_invoices_own_cannot_be_canceled_apart_from_it(self, shop: Shop) -> None:
        _, intent = await self.open_payment(shop)
        with pytest.raises(stripe.InvalidRequestError, match="belongs to an invoice"):
            await shop.api.payment_intents.cancel_async(intent.id)

    async def test_invoices_are_voided_and_given_up(self, shop: Shop) -> None:
        subscription, intent = await self.open_payment(shop)
        given_up = await shop.api.invoices.mark_uncollectible_async(subscription.latest_invoice)
        assert given_up.status == "uncollectible"
        voided = await shop.api.invoices.void_invoice_async(subscription.latest_invoice)
        assert (voided.status, voided.amount_remaining) == ("void", 0)
        assert (await shop.api.payment_intents.retrieve_async(intent.id)).status == "canceled"
        paid = await shop.api.invoice_payments.list_async({"invoice": voided.id, "status": "canceled"})
        assert len(paid.data) == 1
        with pytest.raises(stripe.InvalidRequestError):
            await shop.api.invoices.pay_async(voided.id, {"payment_method": "pm_card_visa"})


class TestRefunds:
    async def test_a_refund_gives_money_back_and_cancels_nothing(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        intent = await payment_of(shop, subscription)
        part = await shop.api.refunds.create_async(
            {"payment_intent": intent.id, "amount": 400, "reason": "duplicate", "metadata": {"why": "twice"}}
        )
        assert (part.status, part.amount, part.charge) == ("succeeded", 400, intent.latest_charge)
        charge = await shop.api.charges.retrieve_async(intent.latest_charge, {"expand": ["refunds"]})
        assert (charge.amount_refunded, charge.refunded, charge.refunds.data[0].id) == (400, False, part.id)
        await shop.api.refunds.create_async({"charge": charge.id})
        charge = await shop.api.charges.retrieve_async(charge.id)
        assert (charge.amount_refunded, charge.refunded) == (1000, True)
        assert len((await shop.api.refunds.list_async({"payment_intent": intent.id})).data) == 2
        assert (await shop.read(subscription)).status == "active"

    async def test_more_than_was_paid_is_refused(self, shop: Shop) -> None:
        intent = await payment_of(shop, await shop.subscription())
        with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
            await shop.api.refunds.create_async({"payment_intent": intent.id, "amount": 1001})
        await shop.api.refunds.create_async({"payment_intent": intent.id})
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await shop.api.refunds.create_async({"payment_intent": intent.id})
        assert refused.value.code == "charge_already_refunded"


class TestDisputes:
    async def test_a_dispute_is_walked_to_its_subscription_and_customer(self, shop: Shop) -> None:
        made = await shop.subscription()
        opened = shop.double.simulate.dispute(made.id)

        dispute = await shop.api.disputes.retrieve_async(opened["id"])
        charge = await shop.api.charges.retrieve_async(dispute.charge)
        payment = {"type": "payment_intent", "payment_intent": charge.payment_intent}
        payments = await shop.api.invoice_payments.list_async({"payment": payment})
        invoice = await shop.api.invoices.retrieve_async(payments.data[0].invoice)
        subscription = await shop.api.subscriptions.retrieve_async(invoice.parent.subscription_details.subscription)

        assert (subscription.id, subscription.customer) == (made.id, made.customer)
        assert (dispute.status, charge.disputed) == ("needs_response", True)

    @pytest.mark.parametrize(
        ("inquiry", "status", "last"),
        [
            (False, "won", ["charge.dispute.funds_reinstated", "charge.dispute.closed"]),
            (False, "lost", ["charge.dispute.funds_withdrawn", "charge.dispute.closed"]),
            (True, "warning_closed", ["charge.dispute.created", "charge.dispute.closed"]),
        ],
    )
    async def test_the_bank_closes_it(self, shop: Shop, inquiry: bool, status: str, last: list[str]) -> None:  # noqa: FBT001
        subscription = await shop.subscription()
        opened = shop.double.simulate.dispute(subscription.id, inquiry=inquiry)
        closed = shop.double.simulate.close_dispute(opened["id"], status)
        assert closed["status"] == status
        assert shop.types()[-2:] == last

    async def test_giving_in_loses_it(self, shop: Shop) -> None:
        customer = await shop.customer("pm_card_createDispute")
        await shop.subscription(customer.id)
        (dispute,) = (await shop.api.disputes.list_async()).data
        answered = await shop.api.disputes.update_async(dispute.id, {"evidence": {"product_description": "Beak"}})
        assert answered.status == "under_review"
        assert (await shop.api.disputes.close_async(dispute.id)).status == "lost"
        with pytest.raises(stripe.InvalidRequestError, match="already closed"):
            await shop.api.disputes.close_async(dispute.id)

    async def test_a_disputed_charge_is_not_refunded_or_disputed_again(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        dispute = shop.double.simulate.dispute(subscription.id)
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await shop.api.refunds.create_async({"charge": dispute["charge"]})
        assert refused.value.code == "charge_disputed"
        assert (await shop.api.disputes.list_async({"charge": dispute["charge"]})).data[0].id == dispute["id"]


async def test_a_portal_session_is_a_link_for_a_customer(shop: Shop) -> None:
    customer = await shop.customer()
    params = {"customer": customer.id, "return_url": "https://getbeak.app/"}
    sessions = [await shop.api.billing_portal.sessions.create_async(params) for _ in range(2)]
    assert sessions[0].url.startswith("https://billing.stripe.com/p/session/test_")
    assert sessions[0].url != sessions[1].url
    await shop.api.customers.delete_async(customer.id)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await shop.api.billing_portal.sessions.create_async(params)
    assert refused.value.param == "customer"


class TestPartialPayments:
    async def owing(self, shop: Shop) -> Any:
        subscription = await shop.subscription()
        shop.double.simulate.decline(subscription.customer)
        await shop.advance(days=32)
        return await shop.read(subscription)

    async def test_the_invoices_own_payment_asks_for_what_remains(self, shop: Shop) -> None:
        subscription = await self.owing(shop)
        part = shop.double.simulate.pay_partially(subscription.id, 400)
        invoice = await shop.api.invoices.retrieve_async(subscription.latest_invoice, {"expand": ["payments"]})
        assert (invoice.status, invoice.amount_paid, invoice.amount_remaining) == ("open", 400, 600)
        ties = {tie.payment.payment_intent: tie for tie in invoice.payments.data}
        own = ties.pop(next(intent for intent in ties if intent != part["id"]))
        assert (ties[part["id"]].status, ties[part["id"]].amount_paid, ties[part["id"]].is_default) == (
            "paid",
            400,
            False,
        )
        assert (own.status, own.amount_requested, own.is_default) == ("open", 600, True)
        assert (await shop.api.payment_intents.retrieve_async(own.payment.payment_intent)).amount == 600
        shop.double.simulate.recover(subscription.customer)
        invoice = await shop.api.invoices.retrieve_async(invoice.id)
        assert (invoice.status, invoice.amount_paid) == ("paid", 1000)
        assert (await shop.read(subscription)).status == "active"

    async def test_the_last_part_makes_the_invoice_paid_and_its_own_payment_canceled(self, shop: Shop) -> None:
        subscription = await self.owing(shop)
        shop.double.simulate.pay_partially(subscription.id, 400)
        intent = shop.double.simulate.pay_once(600, customer=subscription.customer)
        invoice = await shop.api.invoices.attach_payment_async(
            subscription.latest_invoice, {"payment_intent": intent["id"]}
        )
        assert (invoice.status, invoice.amount_remaining) == ("paid", 0)
        assert len(shop.events("payment_intent.canceled")) == 1
        assert (await shop.read(subscription)).status == "active"
        assert len(shop.events("invoice_payment.paid")) == 3

    async def test_only_what_fits_is_attached(self, shop: Shop) -> None:
        subscription = await self.owing(shop)
        for payment in (
            shop.double.simulate.pay_once(400),
            shop.double.simulate.pay_once(400, currency="eur", customer=subscription.customer),
            shop.double.simulate.pay_once(2000, customer=subscription.customer),
            shop.double.simulate.pay_once(
                400, customer=subscription.customer, payment_method="pm_card_chargeDeclinedInsufficientFunds"
            ),
        ):
            with pytest.raises(stripe.InvalidRequestError):
                await shop.api.invoices.attach_payment_async(
                    subscription.latest_invoice, {"payment_intent": payment["id"]}
                )


class TestPaymentsOutsideOfInvoices:
    async def test_one_is_made_and_tried_in_one_call(self, shop: Shop) -> None:
        intent = await shop.api.payment_intents.create_async(
            {"amount": 500, "currency": "jpy", "confirm": True, "payment_method": "pm_card_visa"}
        )
        assert (intent.status, intent.amount_received, intent.customer) == ("succeeded", 500, None)
        payment = {"type": "payment_intent", "payment_intent": intent.id}
        assert (await shop.api.invoice_payments.list_async({"payment": payment})).data == []

    async def test_one_without_a_card_waits_and_may_be_canceled(self, shop: Shop) -> None:
        intent = await shop.api.payment_intents.create_async({"amount": 500, "currency": "usd"})
        assert intent.status == "requires_payment_method"
        assert (await shop.api.payment_intents.cancel_async(intent.id)).status == "canceled"


async def test_a_refund_that_failed_is_the_merchants_again(shop: Shop) -> None:
    subscription = await shop.subscription()
    refund = shop.double.simulate.refund(subscription.id, amount=400)
    shop.double.simulate.fail_refund(refund["id"])
    charge = await shop.api.charges.retrieve_async(refund["charge"])
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    assert (await shop.api.refunds.retrieve_async(refund["id"])).status == "failed"
    assert {"refund.failed", "charge.refund.updated"} <= set(shop.types())


async def test_an_inquiry_may_become_a_chargeback(shop: Shop) -> None:
    subscription = await shop.subscription()
    inquiry = shop.double.simulate.dispute(subscription.id, inquiry=True)
    escalated = shop.double.simulate.escalate_dispute(inquiry["id"])
    assert (escalated["id"], escalated["status"]) == (inquiry["id"], "needs_response")
    assert "charge.dispute.funds_withdrawn" in shop.types()
    assert shop.double.simulate.close_dispute(inquiry["id"], "won")["status"] == "won"
