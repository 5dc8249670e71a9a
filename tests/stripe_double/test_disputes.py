import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_a_dispute_leads_to_its_subscription_and_customer(shop: Shop) -> None:
    disputed = await shop.subscription()
    opened = shop.double.simulate.dispute(disputed.id)

    dispute = await shop.api.disputes.retrieve_async(opened["id"])
    charge = await shop.api.charges.retrieve_async(dispute.charge)
    payment = {"type": "payment_intent", "payment_intent": charge.payment_intent}
    payments = await shop.api.invoice_payments.list_async({"payment": payment})
    invoice = await shop.api.invoices.retrieve_async(payments.data[0].invoice)
    subscription = await shop.api.subscriptions.retrieve_async(invoice.parent.subscription_details.subscription)

    assert (subscription.id, subscription.customer) == (disputed.id, disputed.customer)
    assert (dispute.status, charge.disputed) == ("needs_response", True)


@pytest.mark.parametrize(
    ("inquiry", "status", "last"),
    [
        (False, "won", ["charge.dispute.funds_reinstated", "charge.dispute.closed"]),
        (False, "lost", ["charge.dispute.funds_withdrawn", "charge.dispute.closed"]),
        (True, "warning_closed", ["charge.dispute.created", "charge.dispute.closed"]),
    ],
)
async def test_closing_a_dispute_emits_the_events_of_its_outcome(
    shop: Shop, *, inquiry: bool, status: str, last: list[str]
) -> None:
    subscription = await shop.subscription()
    opened = shop.double.simulate.dispute(subscription.id, inquiry=inquiry)
    closed = shop.double.simulate.close_dispute(opened["id"], status)
    assert closed["status"] == status
    assert shop.types()[-2:] == last


async def test_evidence_has_all_members_before_and_after_it_is_sent(shop: Shop) -> None:
    opened = shop.double.simulate.dispute((await shop.subscription()).id)
    assert (opened["evidence"]["receipt"], opened["evidence"]["enhanced_evidence"]) == (None, {})
    sent = await shop.api.disputes.update_async(opened["id"], {"evidence": {"customer_name": "Ada"}})
    assert sent.evidence.to_dict() == {**opened["evidence"], "customer_name": "Ada"}


async def test_accepting_a_dispute_loses_it(shop: Shop) -> None:
    customer = await shop.customer("pm_card_createDispute")
    await shop.subscription(customer.id)
    (dispute,) = (await shop.api.disputes.list_async()).data
    updated = await shop.api.disputes.update_async(dispute.id, {"evidence": {"product_description": "Beak"}})
    assert updated.status == "under_review"
    assert (await shop.api.disputes.close_async(dispute.id)).status == "lost"
    with pytest.raises(stripe.InvalidRequestError, match="already closed"):
        await shop.api.disputes.close_async(dispute.id)


async def test_a_disputed_charge_cannot_be_refunded(shop: Shop) -> None:
    subscription = await shop.subscription()
    dispute = shop.double.simulate.dispute(subscription.id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.api.refunds.create_async({"charge": dispute["charge"]})
    assert caught.value.code == "charge_disputed"
    assert (await shop.api.disputes.list_async({"charge": dispute["charge"]})).data[0].id == dispute["id"]


async def test_an_inquiry_can_become_a_chargeback(shop: Shop) -> None:
    subscription = await shop.subscription()
    inquiry = shop.double.simulate.dispute(subscription.id, inquiry=True)
    escalated = shop.double.simulate.escalate_dispute(inquiry["id"])
    assert (escalated["id"], escalated["status"]) == (inquiry["id"], "needs_response")
    assert "charge.dispute.funds_withdrawn" in shop.types()
    assert shop.double.simulate.close_dispute(inquiry["id"], "won")["status"] == "won"
