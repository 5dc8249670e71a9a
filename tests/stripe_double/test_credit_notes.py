import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_a_credit_note_of_a_paid_invoice_is_limited_to_its_total(shop: Shop) -> None:
    subscription = await shop.subscription()
    invoice = await shop.api.invoices.retrieve_async(subscription.latest_invoice)
    note = await shop.api.credit_notes.create_async({"invoice": invoice.id, "amount": 100, "reason": "duplicate"})
    assert (note.status, note.type, note.customer) == ("issued", "post_payment", subscription.customer)
    assert shop.types()[-1] == "credit_note.created"
    with pytest.raises(stripe.InvalidRequestError, match="exceeds"):
        await shop.api.credit_notes.create_async({"invoice": invoice.id, "amount": invoice.total})
    # Only a credit note of an open invoice can be voided.
    with pytest.raises(stripe.InvalidRequestError, match="void"):
        await shop.api.credit_notes.void_credit_note_async(note.id)
    listed = await shop.api.credit_notes.list_async({"customer": subscription.customer})
    assert [each.id for each in listed.data] == [note.id]


async def test_the_movements_of_a_dispute_are_its_balance_transactions(shop: Shop) -> None:
    subscription = await shop.subscription()
    opened = shop.double.simulate.dispute(subscription.id)
    shop.double.simulate.close_dispute(opened["id"], "won")
    dispute = await shop.api.disputes.retrieve_async(opened["id"])
    assert [(each.amount, each.fee) for each in dispute.balance_transactions] == [
        (-dispute.amount, 1500),
        (dispute.amount, 0),
    ]
