import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_a_card_with_3d_secure_requires_action(shop: Shop) -> None:
    customer = await shop.customer("pm_card_authenticationRequired")
    subscription = await shop.subscription(customer.id)
    assert subscription.status == "incomplete"
    assert (await shop.payment_intent(subscription)).next_action.type == "use_stripe_sdk"
    assert {"payment_intent.requires_action", "invoice.payment_action_required"} <= set(shop.types())
    shop.double.simulate.authenticate(subscription.id)
    assert (await shop.read(subscription)).status == "active"


async def test_the_payment_intent_of_an_invoice_cannot_be_canceled_alone(shop: Shop) -> None:
    _, intent = await shop.incomplete_subscription()
    with pytest.raises(stripe.InvalidRequestError, match="belongs to an invoice"):
        await shop.api.payment_intents.cancel_async(intent.id)


async def test_a_payment_intent_without_a_card_can_be_canceled(shop: Shop) -> None:
    intent = await shop.api.payment_intents.create_async({"amount": 500, "currency": "usd"})
    assert intent.status == "requires_payment_method"
    assert (await shop.api.payment_intents.cancel_async(intent.id)).status == "canceled"


async def test_a_refund_leaves_the_subscription_active(shop: Shop) -> None:
    subscription = await shop.subscription()
    intent = await shop.payment_intent(subscription)
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


async def test_refunds_above_the_charged_amount_are_refused(shop: Shop) -> None:
    intent = await shop.payment_intent(await shop.subscription())
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        await shop.api.refunds.create_async({"payment_intent": intent.id, "amount": 1001})
    await shop.api.refunds.create_async({"payment_intent": intent.id})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.api.refunds.create_async({"payment_intent": intent.id})
    assert caught.value.code == "charge_already_refunded"


async def test_a_failed_refund_is_taken_off_the_refunded_amount(shop: Shop) -> None:
    subscription = await shop.subscription()
    refund = shop.double.simulate.refund(subscription.id, amount=400)
    shop.double.simulate.fail_refund(refund["id"])
    charge = await shop.api.charges.retrieve_async(refund["charge"])
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    assert (await shop.api.refunds.retrieve_async(refund["id"])).status == "failed"
    assert {"refund.failed", "charge.refund.updated"} <= set(shop.types())
