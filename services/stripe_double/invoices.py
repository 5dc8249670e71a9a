"""Invoices of subscriptions: created as drafts, finalized, paid, voided or marked uncollectible.

`billing` collects them; requests that lead to a charge are there.
"""

from typing import Any

from services.stripe_double import catalog, events, invoice_items, payments, tax_rates
from services.stripe_double.account import Account, Json, new_id
from services.stripe_double.clock import DAY, HOUR
from services.stripe_double.errors import StripeApiError
from services.stripe_double.params import Params
from services.stripe_double.rendering import filter_customer, filter_equal, list_page

DRAFT_TIME = HOUR
"""Time that a renewal invoice stays a draft before it is charged (docs.stripe.com/billing/subscriptions/trials)."""
STATUSES = ("draft", "open", "paid", "uncollectible", "void")


def create_draft(
    account: Account, subscription: Json, lines: list[Json], reason: str, *, auto_advance: bool = True
) -> Json:
    """Create a draft invoice, including the pending invoice items, and return it.

    Args:
        account: The account.
        subscription: The billed subscription; the caller sets its `latest_invoice`.
        lines: Line items of the new period.
        reason: Stripe's `billing_reason`, for example `subscription_cycle`.
        auto_advance: False keeps the invoice a draft, for unpaid subscriptions and paused collection.
    """
    identifier = new_id("invoice")
    lines = [*invoice_items.add_pending_items(account, subscription, identifier), *lines]
    lines = [{**line, "invoice": identifier} for line in lines]
    invoice = _new_invoice(account, subscription, lines, reason, auto_advance=auto_advance)
    invoice["id"] = identifier
    events.emit(account, "invoice.created", account.put(invoice))
    return invoice


def preview(account: Account, subscription: Json, items: list[Json]) -> Json:
    """Return the invoice that the next period of a subscription will make; it is not stored.

    Args:
        account: The account.
        subscription: The subscription.
        items: Its items with their next periods.

    Returns:
        A stored draft's shape with an ID that begins with `upcoming_in_`, as of Stripe's previews.
    """
    # At the end of a trial the next period is paid.
    lines = [
        *invoice_items.pending_lines(account, subscription),
        *invoice_items.period_lines(account, {**subscription, "status": "active"}, items),
    ]
    invoice = _new_invoice(account, subscription, lines, "upcoming", auto_advance=True)
    return {**invoice, "id": f"upcoming_{invoice['id']}"}


def _new_invoice(account: Account, subscription: Json, lines: list[Json], reason: str, *, auto_advance: bool) -> Json:
    customer = account.get("customer", subscription["customer"])
    automatic = subscription["collection_method"] == "charge_automatically"
    periods = [(line["period"]["start"], line["period"]["end"]) for line in lines]
    return account.new(
        "invoice",
        **_CONSTANT_MEMBERS,
        **_amounts(account, subscription, lines),
        attempt_count=0,
        attempted=False,
        auto_advance=auto_advance,
        automatically_finalizes_at=account.now + DRAFT_TIME if auto_advance else None,
        billing_reason=reason,
        collection_method=subscription["collection_method"],
        currency=subscription["currency"],
        customer=customer["id"],
        customer_email=customer["email"],
        customer_name=customer["name"],
        customer_phone=customer["phone"],
        default_payment_method=None,
        default_tax_rates=subscription["default_tax_rates"],
        description=subscription["description"],
        discounts=subscription["discounts"],
        due_date=None if automatic else account.now + (subscription["days_until_due"] or 0) * DAY,
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


_CONSTANT_MEMBERS: Json = {
    "account_country": "US",
    "account_name": "Stripe double",
    "account_tax_ids": None,
    "amount_overpaid": 0,
    "amount_paid_off_stripe": 0,
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
    "total_pretax_credit_amounts": [],
    "webhooks_delivered_at": None,
}
"""Members of a new invoice that do not depend on the subscription."""


def _amounts(account: Account, subscription: Json, lines: list[Json]) -> Json:
    discountable = sum(line["amount"] for line in lines if line["discountable"])
    discount_amounts = catalog.discount_amounts(account, subscription["discounts"], max(0, discountable))
    discount = sum(amount for _, amount in discount_amounts)
    amounts = tax_rates.amounts(account, subscription["default_tax_rates"], lines, discount)
    return {
        **amounts,
        "amount_due": max(0, amounts["total"]),
        "amount_paid": 0,
        "amount_remaining": max(0, amounts["total"]),
        "total_discount_amounts": [{"amount": amount, "discount": discount} for discount, amount in discount_amounts],
    }


def finalize(account: Account, invoice: Json) -> Json:
    """Finalize a draft: number it, apply the customer's balance, and open it or mark it paid; return it.

    An invoice with an amount due gets a payment intent; `billing` charges it.

    Raises:
        StripeApiError: The invoice is not a draft.
    """
    if invoice["status"] != "draft":
        raise StripeApiError("This invoice is already finalized, you can't re-finalize a non-draft invoice.")
    customer = account.get("customer", invoice["customer"])
    balance = customer["balance"]
    due = max(0, invoice["total"] + balance)
    ending_balance = min(0, invoice["total"] + balance)
    number = f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04d}"
    updated = account.update(
        customer,
        balance=ending_balance,
        next_invoice_sequence=customer["next_invoice_sequence"] + 1,
        currency=invoice["currency"],
    )
    if ending_balance != balance:
        events.emit(account, "customer.updated", updated, before=customer)
    invoice = account.update(
        invoice,
        amount_due=due,
        amount_remaining=due,
        auto_advance=invoice["auto_advance"] and due > 0,
        automatically_finalizes_at=None,
        effective_at=account.now,
        ending_balance=ending_balance,
        number=number,
        starting_balance=balance,
        status="open",
        status_transitions={**invoice["status_transitions"], "finalized_at": account.now},
    )
    events.emit(account, "invoice.finalized", invoice)
    if due == 0:
        return mark_paid(account, invoice)
    intent = payments.new_payment_intent(
        account,
        amount=due,
        currency=invoice["currency"],
        customer=invoice["customer"],
        description=f"Invoice {number}",
        invoice=invoice["id"],
    )
    put_payment(account, invoice, intent, amount=due, is_default=True)
    return invoice


def put_payment(
    account: Account, invoice: Json, intent: Json, *, amount: int, is_default: bool, paid: bool = False
) -> Json:
    """Put the invoice payment that links a payment intent to its invoice; return it.

    Args:
        account: The account.
        invoice: The invoice.
        intent: The payment intent.
        amount: Requested amount.
        is_default: Whether it is the payment made at finalization, which Stripe collects.
        paid: Whether the payment intent has already succeeded.
    """
    return account.put(
        account.new(
            "invoice_payment",
            amount_paid=amount if paid else None,
            amount_requested=amount,
            currency=invoice["currency"],
            invoice=invoice["id"],
            is_default=is_default,
            payment={"payment_intent": intent["id"], "type": "payment_intent"},
            status="paid" if paid else "open",
            status_transitions={"canceled_at": None, "paid_at": account.now if paid else None},
        )
    )


def payment_intent_of(account: Account, invoice: Json) -> Json | None:
    """Return the default payment intent of an invoice; None if nothing was ever due."""
    for payment in account.owned("invoice_payment", invoice["id"]):
        if payment["is_default"]:
            return account.get("payment_intent", payment["payment"]["payment_intent"])
    return None


def subscription_of(account: Account, invoice: Json) -> Json:
    """Return the subscription that an invoice bills."""
    return account.get("subscription", invoice["parent"]["subscription_details"]["subscription"])


def _open_payments(account: Account, invoice: Json) -> list[Json]:
    # Partial payments that were paid before stay unchanged.
    return [payment for payment in account.owned("invoice_payment", invoice["id"]) if payment["status"] == "open"]


def mark_paid(account: Account, invoice: Json) -> Json:
    """Mark an invoice paid, by its payments or because nothing is due; return it."""
    for payment in _open_payments(account, invoice):
        paid = account.update(
            payment,
            amount_paid=payment["amount_requested"],
            status="paid",
            status_transitions={**payment["status_transitions"], "paid_at": account.now},
        )
        events.emit(account, "invoice_payment.paid", paid)
    return _mark_paid(account, invoice)


def mark_paid_out_of_band(account: Account, invoice: Json) -> Json:
    """Mark an invoice paid by money outside of Stripe, and cancel its open payments; return it."""
    _cancel_open_payments(account, invoice)
    return _mark_paid(account, invoice, amount_paid_off_stripe=invoice["amount_remaining"])


def _mark_paid(account: Account, invoice: Json, **changes: Any) -> Json:
    invoice = account.update(
        invoice,
        **changes,
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
    """Void an invoice and cancel its open payment intents; return it.

    Raises:
        StripeApiError: The invoice is neither open nor uncollectible.
    """
    if invoice["status"] not in {"open", "uncollectible"}:
        raise StripeApiError(f"You can only void open or uncollectible invoices, not {invoice['status']} ones.")
    _cancel_open_payments(account, invoice)
    invoice = account.update(
        invoice,
        amount_remaining=0,
        auto_advance=False,
        next_payment_attempt=None,
        status="void",
        status_transitions={**invoice["status_transitions"], "voided_at": account.now},
    )
    events.emit(account, "invoice.voided", invoice)
    _discard_pending_update(account, invoice)
    return invoice


def pends(subscription: Json, invoice: Json) -> bool:
    """Return whether a pending update of the subscription takes effect when the invoice is paid."""
    return subscription["pending_update"] is not None and subscription["_pending"]["invoice"] == invoice["id"]


def _discard_pending_update(account: Account, invoice: Json) -> None:
    subscription = subscription_of(account, invoice)
    if pends(subscription, invoice):
        after = account.update(subscription, pending_update=None, _pending=None)
        events.emit(account, "customer.subscription.pending_update_expired", after)
        events.emit(account, "customer.subscription.updated", after, before=subscription)


def _cancel_open_payments(account: Account, invoice: Json) -> None:
    for payment in _open_payments(account, invoice):
        intent = account.get("payment_intent", payment["payment"]["payment_intent"])
        if intent["status"] not in payments.LOCKED:
            payments.cancel(account, intent, "void_invoice")
        cancel_payment(account, payment)


def cancel_payment(account: Account, payment: Json) -> None:
    """Cancel an invoice payment."""
    transitions = {**payment["status_transitions"], "canceled_at": account.now}
    account.update(payment, status="canceled", status_transitions=transitions)


def mark_uncollectible(account: Account, invoice: Json) -> Json:
    """Mark an open invoice uncollectible; return it.

    Raises:
        StripeApiError: The invoice is not open.
    """
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
    """Stop the automatic collection of a subscription's open and draft invoices."""
    for invoice in account.owned("invoice", subscription["customer"]):
        if invoice["status"] in {"open", "draft"} and subscription_of(account, invoice)["id"] == subscription["id"]:
            stopped = account.update(
                invoice, auto_advance=False, next_payment_attempt=None, automatically_finalizes_at=None
            )
            events.emit_if_changed(account, "invoice.updated", invoice, stopped)


def list_invoices(account: Account, params: Params) -> Json:
    """GET /v1/invoices."""
    found = filter_customer(account, params, "invoice")
    params.choice("status", STATUSES)
    found = filter_equal(params, found, "status", "collection_method")
    subscription = params.string("subscription")
    if subscription is not None:
        found = [
            invoice for invoice in found if invoice["parent"]["subscription_details"]["subscription"] == subscription
        ]
    return list_page(account, params, "/v1/invoices", found)


def list_invoice_lines(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/invoices/{id}/lines: all line items; the list inside the invoice ends after ten."""
    lines = account.get("invoice", identifier)["lines"]
    return list_page(account, params, f"/v1/invoices/{identifier}/lines", lines)


def list_invoice_payments(account: Account, params: Params) -> Json:
    """GET /v1/invoice_payments, by `invoice` or by `payment[payment_intent]`."""
    invoice = params.string("invoice")
    found = account.all("invoice_payment") if invoice is None else account.owned("invoice_payment", invoice)
    found = filter_equal(params, found, "status")
    payment = params.nested("payment")
    if payment is not None:
        payment.choice("type", ("payment_intent",))
        intent = payment.required("payment_intent")
        payment.reject_unknown()
        found = [entry for entry in found if entry["payment"]["payment_intent"] == intent]
    return list_page(account, params, "/v1/invoice_payments", found)


def update_invoice(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}: `metadata`, `description`, `auto_advance`."""
    before = account.get("invoice", identifier)
    changes = {
        **params.sent_strings(("description",)),
        "auto_advance": params.boolean("auto_advance", default=before["auto_advance"]),
        "metadata": params.metadata(before["metadata"]),
    }
    params.reject_unknown()
    if not changes["auto_advance"]:
        changes |= {"automatically_finalizes_at": None, "next_payment_attempt": None}
    return events.emit_if_changed(account, "invoice.updated", before, account.update(before, **changes))


def void_invoice(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}/void."""
    params.reject_unknown()
    return void(account, account.get("invoice", identifier))


def mark_invoice_uncollectible(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}/mark_uncollectible."""
    params.reject_unknown()
    return mark_uncollectible(account, account.get("invoice", identifier))
