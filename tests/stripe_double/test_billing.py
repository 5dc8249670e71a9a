import pytest
import stripe

from services.stripe_double import Settings
from tests.stripe_double.shop import START, Shop, open_shop


async def test_a_declined_confirmation_is_a_402_and_stays_on_record(shop: Shop) -> None:
    subscription, intent = await shop.incomplete_subscription()
    with pytest.raises(stripe.CardError) as caught:
        await shop.api.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_chargeDeclined"})
    assert caught.value.error.payment_intent.id == intent.id
    again = await shop.api.payment_intents.retrieve_async(intent.id)
    assert (again.status, again.last_payment_error.code) == ("requires_payment_method", "card_declined")
    charge = await shop.api.charges.retrieve_async(again.latest_charge)
    assert (charge.status, charge.paid, charge.outcome.reason) == ("failed", False, "generic_decline")
    assert {"charge.failed", "payment_intent.payment_failed", "invoice.payment_failed"} <= set(shop.types())
    assert (await shop.read(subscription)).status == "incomplete"


async def test_a_good_card_after_a_declined_one_activates_the_subscription(shop: Shop) -> None:
    subscription, intent = await shop.incomplete_subscription()
    with pytest.raises(stripe.CardError):
        await shop.api.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_chargeDeclined"})
    paid = await shop.api.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert (paid.status, paid.amount_received, paid.last_payment_error) == ("succeeded", 1000, None)
    assert (await shop.read(subscription)).status == "active"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.api.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert caught.value.code == "payment_intent_unexpected_state"


async def test_a_payment_intent_is_created_and_confirmed_in_one_request(shop: Shop) -> None:
    intent = await shop.api.payment_intents.create_async(
        {"amount": 500, "currency": "jpy", "confirm": True, "payment_method": "pm_card_visa"}
    )
    assert (intent.status, intent.amount_received, intent.customer) == ("succeeded", 500, None)
    payment = {"type": "payment_intent", "payment_intent": intent.id}
    assert (await shop.api.invoice_payments.list_async({"payment": payment})).data == []


async def test_a_partial_payment_reduces_the_default_payment_intent(shop: Shop) -> None:
    subscription = await shop.past_due_subscription()
    part = shop.double.simulate.pay_partially(subscription.id, 400)
    invoice = await shop.api.invoices.retrieve_async(subscription.latest_invoice, {"expand": ["payments"]})
    assert (invoice.status, invoice.amount_paid, invoice.amount_remaining) == ("open", 400, 600)
    payments = {payment.payment.payment_intent: payment for payment in invoice.payments.data}
    default = payments.pop(next(intent for intent in payments if intent != part["id"]))
    assert (payments[part["id"]].status, payments[part["id"]].amount_paid, payments[part["id"]].is_default) == (
        "paid",
        400,
        False,
    )
    assert (default.status, default.amount_requested, default.is_default) == ("open", 600, True)
    assert (await shop.api.payment_intents.retrieve_async(default.payment.payment_intent)).amount == 600
    shop.double.simulate.recover(subscription.customer)
    invoice = await shop.api.invoices.retrieve_async(invoice.id)
    assert (invoice.status, invoice.amount_paid) == ("paid", 1000)
    assert (await shop.read(subscription)).status == "active"


async def test_the_last_partial_payment_pays_the_invoice(shop: Shop) -> None:
    subscription = await shop.past_due_subscription()
    shop.double.simulate.pay_partially(subscription.id, 400)
    intent = shop.double.simulate.pay_once(600, customer=subscription.customer)
    invoice = await shop.api.invoices.attach_payment_async(
        subscription.latest_invoice, {"payment_intent": intent["id"]}
    )
    assert (invoice.status, invoice.amount_remaining) == ("paid", 0)
    assert len(shop.events("payment_intent.canceled")) == 1
    assert (await shop.read(subscription)).status == "active"
    assert len(shop.events("invoice_payment.paid")) == 3


async def test_a_payment_that_does_not_fit_is_not_attached(shop: Shop) -> None:
    subscription = await shop.past_due_subscription()
    for payment in (
        shop.double.simulate.pay_once(400),
        shop.double.simulate.pay_once(400, currency="eur", customer=subscription.customer),
        shop.double.simulate.pay_once(2000, customer=subscription.customer),
        shop.double.simulate.pay_once(
            400, customer=subscription.customer, payment_method="pm_card_chargeDeclinedInsufficientFunds"
        ),
    ):
        with pytest.raises(stripe.InvalidRequestError):
            await shop.api.invoices.attach_payment_async(subscription.latest_invoice, {"payment_intent": payment["id"]})


async def test_a_declined_renewal_is_past_due_and_retried(shop: Shop) -> None:
    subscription = await shop.past_due_subscription()
    past_due = await shop.read(subscription, "latest_invoice")
    assert (past_due.status, past_due.latest_invoice.status) == ("past_due", "open")
    assert (past_due.latest_invoice.attempt_count, past_due.latest_invoice.amount_remaining) == (1, 1000)
    await shop.advance(days=3)
    assert len(shop.events("invoice.payment_failed")) == 2
    assert len(shop.events("payment_intent.payment_failed")) == 2


async def test_the_next_retry_succeeds_with_a_good_card(shop: Shop) -> None:
    subscription = await shop.past_due_subscription()
    shop.double.simulate.change_card(subscription.customer, "pm_card_visa")
    await shop.advance(days=3)
    recovered = await shop.read(subscription, "latest_invoice")
    assert (recovered.status, recovered.latest_invoice.status) == ("active", "paid")
    updated = shop.events("customer.subscription.updated")[-1]
    assert updated["data"]["previous_attributes"]["status"] == "past_due"


@pytest.mark.parametrize("setting", ["canceled", "unpaid", "past_due"])
async def test_after_the_last_retry_the_account_setting_applies(setting: str) -> None:
    async with open_shop(start=START, settings=Settings(after_retries=setting, retry_days=(1, 2))) as shop:
        subscription = await shop.past_due_subscription()
        await shop.advance(days=4)
        updated = await shop.read(subscription, "latest_invoice")
        assert (updated.status, updated.latest_invoice.attempt_count) == (setting, 3)
        assert (updated.latest_invoice.status, updated.latest_invoice.next_payment_attempt) == ("open", None)


async def test_an_unpaid_subscription_gets_draft_invoices_that_are_not_charged() -> None:
    async with open_shop(start=START, settings=Settings(after_retries="unpaid", retry_days=())) as shop:
        subscription = await shop.past_due_subscription()
        await shop.advance(days=62)
        unpaid = await shop.read(subscription, "latest_invoice")
        assert (unpaid.status, unpaid.latest_invoice.status) == ("unpaid", "draft")
        await shop.api.invoices.pay_async(unpaid.latest_invoice.id, {"payment_method": "pm_card_visa"})
        assert (await shop.read(subscription)).status == "active"


async def test_a_canceled_subscription_is_not_charged_again(shop: Shop) -> None:
    subscription = await shop.past_due_subscription()
    await shop.api.subscriptions.cancel_async(subscription.id)
    attempts = len(shop.double.objects("charge"))
    await shop.advance(days=60)
    assert len(shop.double.objects("charge")) == attempts
