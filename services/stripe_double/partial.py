"""How is an invoice paid in parts? Payments made apart from it are attached, until nothing remains."""

from services.stripe_double import events, invoices, payments, standing
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError, not_played
from services.stripe_double.params import Params


def attach_by_call(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}/attach_payment, of a `payment_intent` that has succeeded."""
    intent = account.get("payment_intent", params.needed("payment_intent"), param="payment_intent")
    params.finish()
    return attach(account, account.get("invoice", identifier), intent)


def attach(account: Account, invoice: Json, intent: Json) -> Json:
    """Counts a payment towards an invoice; returns the invoice.

    What remains is asked of the invoice's own payment intent, which is canceled when nothing does.

    Raises:
        StripeApiError: The invoice is not open; the payment is not over, another customer's, another invoice's or of
            another currency, or more than what remains.
    """
    if invoice["status"] != "open":
        raise StripeApiError(f"Invoice is {invoice['status']}; payments are attached to open ones.")
    if intent["status"] != "succeeded":
        raise not_played("attaching payments that have not succeeded", "payment_intent")
    if intent["_invoice"] is not None or (intent["customer"], intent["currency"]) != (
        invoice["customer"],
        invoice["currency"],
    ):
        raise StripeApiError("This PaymentIntent can't be attached to this invoice.", param="payment_intent")
    amount = intent["amount_received"]
    remaining = invoice["amount_remaining"] - amount
    if remaining < 0:
        raise not_played("overpaid invoices", "payment_intent")
    account.update(intent, _invoice=invoice["id"])
    paid = account.put(
        account.new(
            "invoice_payment",
            amount_paid=amount,
            amount_requested=amount,
            currency=invoice["currency"],
            invoice=invoice["id"],
            is_default=False,
            payment={"payment_intent": intent["id"], "type": "payment_intent"},
            status="paid",
            status_transitions={"canceled_at": None, "paid_at": account.now},
        )
    )
    events.emit(account, "invoice_payment.paid", paid)
    _ask_for(account, invoice, remaining)
    after = account.update(invoice, amount_paid=invoice["amount_paid"] + amount, amount_remaining=remaining)
    if remaining:
        return events.changed(account, "invoice.updated", invoice, after)
    after = invoices.mark_paid(account, after)
    standing.paid(account, after)
    return after


def _ask_for(account: Account, invoice: Json, remaining: int) -> None:
    """Has the invoice's own payment intent ask for what remains, nothing included."""
    intent = invoices.payment_intent_of(account, invoice)
    if intent is None:
        raise RuntimeError(f"Invoice {invoice['id']} is open without a payment intent.")
    (own,) = [each for each in account.owned("invoice_payment", invoice["id"]) if each["is_default"]]
    if remaining:
        account.update(intent, amount=remaining)
        account.update(own, amount_requested=remaining)
    else:
        payments.cancel(account, intent, None)
        account.update(
            own, status="canceled", status_transitions={**own["status_transitions"], "canceled_at": account.now}
        )
