"""What is owed? Invoices of subscriptions: drafted, finalized, paid, voided, given up."""

from services.stripe_double import discounts, events, lines, payments
from services.stripe_double.account import Account, Json
from services.stripe_double.clock import HOUR
from services.stripe_double.errors import StripeApiError
from services.stripe_double.ids import new_id

DRAFT_TIME = HOUR
"""A renewal stays a draft for about an hour, then is charged (docs.stripe.com/billing/subscriptions/trials)."""


def draft(account: Account, subscription: Json, charged: list[Json], reason: str, *, held: bool = False) -> Json:
    """Makes the draft of an invoice, with what waits from before, and announces it.

    Args:
        account: Where.
        subscription: The one that is billed; its `latest_invoice` is the caller's to set.
        charged: Lines of the new period.
        reason: Stripe's `billing_reason`, for example `subscription_cycle`.
        held: Keep it a draft for ever: an unpaid or paused subscription's.
    """
    customer = account.get("customer", subscription["customer"])
    identifier = new_id("invoice")
    entries = [*lines.taken(account, subscription, identifier), *charged]
    entries = [{**entry, "invoice": identifier} for entry in entries]
    automatic = subscription["collection_method"] == "charge_automatically"
    periods = [(entry["period"]["start"], entry["period"]["end"]) for entry in entries]
    invoice = account.new(
        "invoice",
        **_OFTEN_EMPTY,
        **_amounts(account, subscription, entries),
        attempt_count=0,
        attempted=False,
        auto_advance=not held,
        automatically_finalizes_at=None if held else account.now + DRAFT_TIME,
        billing_reason=reason,
        collection_method=subscription["collection_method"],
        currency=subscription["currency"],
        customer=customer["id"],
        customer_email=customer["email"],
        customer_name=customer["name"],
        customer_phone=customer["phone"],
        default_payment_method=None,
        description=subscription["description"],
        discounts=subscription["discounts"],
        due_date=None if automatic else account.now + (subscription["days_until_due"] or 0) * 86400,
        hosted_invoice_url=None,
        invoice_pdf=None,
        lines=entries,
        metadata={},
        number=None,
        parent={
            "quote_details": None,
            "subscription_details": {
                "metadata": subscription["metadata"],
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        },
        period_end=max((end for _, end in periods), default=account.now),
        period_start=min((start for start, _ in periods), default=account.now),
        starting_balance=customer["balance"],
        ending_balance=None,
        status="draft",
        status_transitions=dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")),
    )
    invoice["id"] = identifier
    events.emit(account, "invoice.created", account.put(invoice))
    return invoice


_OFTEN_EMPTY: Json = {
    "account_country": "US",
    "account_name": "Stripe double",
    "account_tax_ids": None,
    "amount_overpaid": 0,
    "amount_shipping": 0,
    "application": None,
    "automatic_tax": {"enabled": False, "disabled_reason": None, "liability": None, "provider": None, "status": None},
    "custom_fields": None,
    "customer_account": None,
    "customer_address": None,
    "customer_shipping": None,
    "customer_tax_exempt": "none",
    "customer_tax_ids": [],
    "default_source": None,
    "default_tax_rates": [],
    "effective_at": None,
    "footer": None,
    "from_invoice": None,
    "issuer": {"type": "self"},
    "last_finalization_error": None,
    "latest_revision": None,
    "next_payment_attempt": None,
    "on_behalf_of": None,
    "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
    "post_payment_credit_notes_amount": 0,
    "pre_payment_credit_notes_amount": 0,
    "receipt_number": None,
    "rendering": None,
    "shipping_cost": None,
    "shipping_details": None,
    "statement_descriptor": None,
    "test_clock": None,
    "threshold_reason": None,
    "total_pretax_credit_amounts": [],
    "total_taxes": [],
    "webhooks_delivered_at": None,
}


def _amounts(account: Account, subscription: Json, entries: list[Json]) -> Json:
    subtotal = sum(entry["amount"] for entry in entries)
    discountable = sum(entry["amount"] for entry in entries if entry["discountable"])
    taken_off = discounts.taken_off(account, subscription["discounts"], max(0, discountable))
    total = subtotal - sum(amount for _, amount in taken_off)
    return {
        "amount_due": max(0, total),
        "amount_paid": 0,
        "amount_remaining": max(0, total),
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "total": total,
        "total_discount_amounts": [{"amount": amount, "discount": name} for name, amount in taken_off],
        "total_excluding_tax": total,
    }


def finalize(account: Account, invoice: Json) -> Json:
    """Numbers a draft, settles it against the customer's balance and opens or pays it; returns it.

    What is still due gets a payment intent; charging it is `collection`'s.

    Raises:
        StripeApiError: It is no draft any more.
    """
    if invoice["status"] != "draft":
        raise StripeApiError("This invoice is already finalized, you can't re-finalize a non-draft invoice.")
    customer = account.get("customer", invoice["customer"])
    balance = customer["balance"]
    owed = invoice["total"] + balance
    due = max(0, owed)
    ending = min(0, owed)
    number = f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04d}"
    counted = account.update(
        customer,
        balance=ending,
        next_invoice_sequence=customer["next_invoice_sequence"] + 1,
        currency=invoice["currency"],
    )
    if ending != balance:
        events.emit(account, "customer.updated", counted, before=customer)
    invoice = account.update(
        invoice,
        amount_due=due,
        amount_remaining=due,
        auto_advance=invoice["auto_advance"] and due > 0,
        automatically_finalizes_at=None,
        effective_at=account.now,
        ending_balance=ending,
        hosted_invoice_url=f"https://invoice.stripe.com/i/test/{invoice['id']}",
        invoice_pdf=f"https://pay.stripe.com/invoice/test/{invoice['id']}/pdf",
        number=number,
        starting_balance=balance,
        status="open",
        status_transitions={**invoice["status_transitions"], "finalized_at": account.now},
    )
    events.emit(account, "invoice.finalized", invoice)
    if due == 0:
        return mark_paid(account, invoice)
    intent = payments.make(
        account,
        amount=due,
        currency=invoice["currency"],
        customer=invoice["customer"],
        description=f"Invoice {number}",
        invoice=invoice["id"],
    )
    _payment(account, invoice, intent)
    return invoice


def _payment(account: Account, invoice: Json, intent: Json) -> None:
    account.put(
        account.new(
            "invoice_payment",
            amount_paid=None,
            amount_requested=invoice["amount_due"],
            currency=invoice["currency"],
            invoice=invoice["id"],
            is_default=True,
            payment={"payment_intent": intent["id"], "type": "payment_intent"},
            status="open",
            status_transitions={"canceled_at": None, "paid_at": None},
        )
    )


def payment_intent_of(account: Account, invoice: Json) -> Json | None:
    """Returns the payment intent by which an invoice is paid; None when nothing was ever due."""
    for payment in account.owned("invoice_payment", invoice["id"]):
        if payment["is_default"]:
            return account.get("payment_intent", payment["payment"]["payment_intent"])
    return None


def _open_payments(account: Account, invoice: Json) -> list[Json]:
    # Parts that were paid before stay as they are.
    return [each for each in account.owned("invoice_payment", invoice["id"]) if each["status"] == "open"]


def subscription_of(account: Account, invoice: Json) -> Json:
    """Returns the subscription that an invoice bills."""
    return account.get("subscription", invoice["parent"]["subscription_details"]["subscription"])


def mark_paid(account: Account, invoice: Json) -> Json:
    """Makes an invoice paid, by its payment intent or because nothing was due, and announces it."""
    for payment in _open_payments(account, invoice):
        paid = account.update(
            payment,
            amount_paid=payment["amount_requested"],
            status="paid",
            status_transitions={**payment["status_transitions"], "paid_at": account.now},
        )
        events.emit(account, "invoice_payment.paid", paid)
    invoice = account.update(
        invoice,
        amount_paid=invoice["amount_due"],
        amount_remaining=0,
        attempted=True,
        auto_advance=False,
        next_payment_attempt=None,
        status="paid",
        status_transitions={**invoice["status_transitions"], "paid_at": account.now},
    )
    events.emit(account, "invoice.paid", invoice)
    events.emit(account, "invoice.payment_succeeded", invoice)
    return invoice


def void(account: Account, invoice: Json) -> Json:
    """Voids an open invoice; its payment intent is canceled with it.

    Raises:
        StripeApiError: It is neither open nor uncollectible.
    """
    if invoice["status"] not in {"open", "uncollectible"}:
        raise StripeApiError(f"You can only void open or uncollectible invoices, not {invoice['status']} ones.")
    for payment in _open_payments(account, invoice):
        intent = account.get("payment_intent", payment["payment"]["payment_intent"])
        if intent["status"] not in {"succeeded", "processing", "canceled"}:
            payments.cancel(account, intent, "void_invoice")
        canceled = {**payment["status_transitions"], "canceled_at": account.now}
        account.update(payment, status="canceled", status_transitions=canceled)
    invoice = account.update(
        invoice,
        amount_remaining=0,
        auto_advance=False,
        next_payment_attempt=None,
        status="void",
        status_transitions={**invoice["status_transitions"], "voided_at": account.now},
    )
    events.emit(account, "invoice.voided", invoice)
    return invoice


def give_up(account: Account, invoice: Json) -> Json:
    """Marks an open invoice uncollectible and announces it."""
    if invoice["status"] != "open":
        raise StripeApiError("You can only mark open invoices uncollectible.")
    invoice = account.update(
        invoice,
        auto_advance=False,
        next_payment_attempt=None,
        status="uncollectible",
        status_transitions={**invoice["status_transitions"], "marked_uncollectible_at": account.now},
    )
    events.emit(account, "invoice.marked_uncollectible", invoice)
    return invoice


def stop_collection(account: Account, subscription: Json) -> None:
    """Stops charging the open invoices and drafts of a subscription that is over."""
    for invoice in account.owned("invoice", subscription["customer"]):
        if invoice["status"] in {"open", "draft"} and subscription_of(account, invoice)["id"] == subscription["id"]:
            stopped = account.update(
                invoice, auto_advance=False, next_payment_attempt=None, automatically_finalizes_at=None
            )
            events.changed(account, "invoice.updated", invoice, stopped)
