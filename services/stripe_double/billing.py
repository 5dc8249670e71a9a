"""Billing: invoices of subscription periods, their collection and retries, and payments by request."""

from services.stripe_double import catalog, customers, events, invoice_items, invoices, payments, subscription_status
from services.stripe_double.account import Account, Json
from services.stripe_double.clock import DAY
from services.stripe_double.errors import StripeApiError, card_declined, not_supported, payment_method_missing
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import attach, behavior_of, default_of, get_or_create
from services.stripe_double.rendering import public_members


def bill(account: Account, subscription: Json, items: list[Json], reason: str, *, charge_now: bool) -> Json:
    """Invoice the current period of subscription items, and the pending invoice items; return the subscription.

    Args:
        account: The account.
        subscription: The subscription, with the periods to bill.
        items: The items that have a new period.
        reason: Stripe's `billing_reason`.
        charge_now: Finalize and charge the invoice now, instead of leaving it a draft for an hour.
    """
    pause = subscription["pause_collection"]
    collectable = subscription["status"] != "unpaid" and pause is None
    lines = invoice_items.period_lines(account, subscription, items)
    invoice = invoices.create_draft(account, subscription, lines, reason, auto_advance=collectable)
    applied = [entry["discount"] for entry in invoice["total_discount_amounts"] if entry["amount"] > 0]
    used_up = catalog.once_only(account, applied)
    catalog.end_discounts(account, used_up)
    account.update(
        subscription,
        latest_invoice=invoice["id"],
        discounts=[discount for discount in subscription["discounts"] if discount not in used_up],
    )
    if pause is not None:
        _apply_pause_behavior(account, invoice, pause["behavior"])
    elif charge_now and collectable:
        finalize_and_collect(account, invoice)
    return account.get("subscription", subscription["id"])


def _apply_pause_behavior(account: Account, invoice: Json, behavior: str) -> None:
    if behavior == "keep_as_draft":
        return
    invoice = invoices.finalize(account, invoice)
    if invoice["status"] != "open":
        return
    if behavior == "void":
        invoices.void(account, invoice)
    else:
        invoices.mark_uncollectible(account, invoice)


def finalize(account: Account, invoice: Json) -> Json:
    """Finalize a draft; if nothing is due, also activate its subscription. Return the invoice."""
    invoice = invoices.finalize(account, invoice)
    if invoice["status"] == "paid":
        subscription_status.payment_succeeded(account, invoice)
    return invoice


def finalize_and_collect(account: Account, invoice: Json) -> Json:
    """Finalize a draft and, with `collection_method=charge_automatically`, charge it; return the invoice."""
    invoice = finalize(account, invoice)
    if invoice["status"] != "paid" and invoice["collection_method"] == "charge_automatically":
        return collect(account, invoice)
    return invoice


def collect(account: Account, invoice: Json, method: Json | None = None, *, automatic: bool = True) -> Json:
    """Charge an open invoice and return it.

    Args:
        account: The account.
        invoice: An open invoice.
        method: The payment method to charge; by default the subscription's or the customer's default.
        automatic: False for an attempt by a person, which does not count as one of the scheduled retries.
    """
    method = method or default_of(account, invoices.subscription_of(account, invoice), invoice["customer"])
    intent = invoices.payment_intent_of(account, invoice)
    if intent is None:
        raise RuntimeError(f"Invoice {invoice['id']} is open without a payment intent.")
    if method is None:
        return _record_failure(account, invoice, automatic=automatic)
    declines = automatic and customers.take_decline(account, invoice["customer"])
    return apply_payment(account, payments.confirm(account, intent, method, declines=declines), automatic=automatic)


def apply_payment(account: Account, intent: Json, *, automatic: bool = False) -> Json:
    """Update invoice and subscription after their payment intent changed; return the invoice."""
    invoice = account.get("invoice", intent["_invoice"])
    if intent["status"] == "succeeded":
        invoice = invoices.mark_paid(account, invoice)
        subscription_status.payment_succeeded(account, invoice)
    elif intent["status"] == "processing":
        invoice = account.update(invoice, attempted=True, next_payment_attempt=None)
        subscription_status.payment_succeeded(account, invoice)
    else:
        if intent["status"] == "requires_action":
            events.emit(account, "invoice.payment_action_required", invoice)
        invoice = _record_failure(account, invoice, automatic=automatic)
    return invoice


def _record_failure(account: Account, invoice: Json, *, automatic: bool) -> Json:
    attempts = invoice["attempt_count"]
    next_attempt = invoice["next_payment_attempt"]
    if automatic or attempts == 0:
        attempts += 1
        next_attempt = _next_attempt(account, invoice, attempts)
    invoice = account.update(invoice, attempt_count=attempts, attempted=True, next_payment_attempt=next_attempt)
    events.emit(account, "invoice.payment_failed", invoice)
    subscription_status.payment_failed(account, invoice)
    if automatic and next_attempt is None:
        subscription_status.retries_exhausted(account, invoice)
    return invoice


def _next_attempt(account: Account, invoice: Json, attempts: int) -> int | None:
    # Stripe never retries the first invoice of an incomplete subscription: it waits for the customer.
    incomplete = invoices.subscription_of(account, invoice)["status"] == "incomplete"
    if incomplete or not invoice["auto_advance"]:
        return None
    days = account.settings.retry_days
    return account.now + days[attempts - 1] * DAY if attempts <= len(days) else None


def retry(account: Account, invoice: Json) -> None:
    """Make the scheduled attempt of an open invoice."""
    invoice = account.update(invoice, next_payment_attempt=None)
    intent = invoices.payment_intent_of(account, invoice)
    if intent is not None and intent["status"] in {"requires_action", "requires_payment_method"}:
        collect(account, invoice)


def finalize_invoice(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}/finalize, ahead of time; with `auto_advance` the invoice is also charged."""
    advance = params.boolean("auto_advance", default=False)
    params.reject_unknown()
    invoice = account.get("invoice", identifier)
    return finalize_and_collect(account, invoice) if advance else finalize(account, invoice)


def pay_invoice(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}/pay: an attempt outside the retry schedule; `paid_out_of_band` charges nothing.

    Raises:
        StripeApiError: 402 if the payment method declines; 400 if the invoice is not open, or if there is no
            payment method.
    """
    invoice = account.get("invoice", identifier)
    method_id = params.string("payment_method")
    params.boolean("off_session")
    out_of_band = params.boolean("paid_out_of_band", default=False)
    params.reject_unknown()
    if invoice["status"] == "draft":
        invoice = finalize(account, invoice)
        if invoice["status"] == "paid":
            return invoice
    if invoice["status"] not in {"open", "uncollectible"}:
        raise StripeApiError(f"Invoice is already {invoice['status']}", code="invoice_not_editable")
    if out_of_band:
        invoice = invoices.mark_paid_out_of_band(account, invoice)
        subscription_status.payment_succeeded(account, invoice)
        return invoice
    subscription = invoices.subscription_of(account, invoice)
    method = (
        get_or_create(account, method_id, param="payment_method")
        if method_id
        else default_of(account, subscription, invoice["customer"])
    )
    if method is None:
        raise payment_method_missing()
    collect(account, invoice, method, automatic=False)
    intent = invoices.payment_intent_of(account, invoice)
    if intent is not None and intent["status"] == "requires_payment_method":
        raise _declined(intent)
    return account.get("invoice", identifier)


def create_payment_intent(account: Account, params: Params) -> Json:
    """POST /v1/payment_intents: a payment without an invoice; `confirm` charges it at once."""
    customer = params.string("customer")
    if customer is not None:
        account.get("customer", customer, param="customer")
    amount = params.required_integer("amount", minimum=1)
    currency, description = params.required("currency"), params.string("description")
    confirm, method_id = params.boolean("confirm", default=False), params.string("payment_method")
    metadata = params.metadata()
    params.reject_unknown()
    intent = payments.new_payment_intent(
        account, amount=amount, currency=currency, customer=customer, description=description, metadata=metadata
    )
    if confirm and method_id is not None:
        return pay(account, intent, get_or_create(account, method_id, param="payment_method"))
    return intent


def confirm_payment_intent(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/payment_intents/{id}/confirm, with `payment_method` or the method that the intent already has."""
    intent = account.get("payment_intent", identifier)
    method_id = params.string("payment_method") or intent["payment_method"]
    params.string("return_url")
    params.reject_unknown()
    if method_id is None:
        raise params.invalid(
            "payment_method",
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            "payment_intent_unexpected_state",
        )
    return pay(account, intent, get_or_create(account, method_id, param="payment_method"))


def pay(account: Account, intent: Json, method: Json, *, authenticated: bool = False) -> Json:
    """Confirm a payment intent, update its invoice, and return it.

    Args:
        account: The account.
        intent: The payment intent.
        method: The payment method to charge; attached to the intent's customer if possible.
        authenticated: The customer has passed 3D Secure.

    Raises:
        StripeApiError: 402 if the payment method declines; the attempt stays on record.
    """
    if intent["customer"] is not None and behavior_of(method).attachable and method["customer"] is None:
        method = attach(account, method["id"], intent["customer"])
    intent = payments.confirm(account, intent, method, authenticated=authenticated)
    if intent["_invoice"] is not None:
        apply_payment(account, intent)
    if intent["last_payment_error"] is not None and intent["status"] == "requires_payment_method":
        raise _declined(intent)
    return intent


def _declined(intent: Json) -> StripeApiError:
    last = intent["last_payment_error"]
    error = card_declined(last["decline_code"], charge=last["charge"], payment_intent=public_members(intent))
    error.keeps_changes = True
    return error


def attach_invoice_payment(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}/attach_payment, of a `payment_intent` that has succeeded."""
    intent = account.get("payment_intent", params.required("payment_intent"), param="payment_intent")
    params.reject_unknown()
    return attach_payment(account, account.get("invoice", identifier), intent)


def attach_payment(account: Account, invoice: Json, intent: Json) -> Json:
    """Count a payment towards an invoice, in part or in full; return the invoice.

    The invoice's default payment intent is reduced to what remains, and canceled if nothing remains.

    Raises:
        StripeApiError: The invoice is not open; or the payment has not succeeded, belongs to another customer or
            another invoice, has another currency, or exceeds what remains.
    """
    if invoice["status"] != "open":
        raise StripeApiError(f"Invoice is {invoice['status']}; payments are attached to open ones.")
    if intent["status"] != "succeeded":
        raise not_supported("attaching payments that have not succeeded", "payment_intent")
    if intent["_invoice"] is not None or (intent["customer"], intent["currency"]) != (
        invoice["customer"],
        invoice["currency"],
    ):
        raise StripeApiError("This PaymentIntent can't be attached to this invoice.", param="payment_intent")
    amount = intent["amount_received"]
    remaining = invoice["amount_remaining"] - amount
    if remaining < 0:
        raise not_supported("overpaid invoices", "payment_intent")
    account.update(intent, _invoice=invoice["id"])
    payment = invoices.put_payment(account, invoice, intent, amount=amount, is_default=False, paid=True)
    events.emit(account, "invoice_payment.paid", payment)
    _reduce_default_payment(account, invoice, remaining)
    after = account.update(invoice, amount_paid=invoice["amount_paid"] + amount, amount_remaining=remaining)
    if remaining:
        return events.emit_if_changed(account, "invoice.updated", invoice, after)
    after = invoices.mark_paid(account, after)
    subscription_status.payment_succeeded(account, after)
    return after


def _reduce_default_payment(account: Account, invoice: Json, remaining: int) -> None:
    intent = invoices.payment_intent_of(account, invoice)
    if intent is None:
        raise RuntimeError(f"Invoice {invoice['id']} is open without a payment intent.")
    (payment,) = [entry for entry in account.owned("invoice_payment", invoice["id"]) if entry["is_default"]]
    if remaining:
        account.update(intent, amount=remaining)
        account.update(payment, amount_requested=remaining)
    else:
        payments.cancel(account, intent, None)
        invoices.cancel_payment(account, payment)
