"""How is an invoice's money collected? Attempts, their outcomes, and the next attempt."""

from services.stripe_double import events, invoices, payments, standing
from services.stripe_double.account import Account, Json
from services.stripe_double.clock import DAY
from services.stripe_double.errors import StripeApiError
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import attached, behaviour, declined, default_of, found
from services.stripe_double.presentation import visible


def settle(account: Account, invoice: Json) -> Json:
    """Finalizes a draft and, where it is charged automatically, tries to collect it; returns it."""
    invoice = invoices.finalize(account, invoice)
    if invoice["status"] == "paid":
        standing.paid(account, invoice)
        return invoice
    if invoice["collection_method"] == "charge_automatically":
        return collect(account, invoice)
    return invoice


def collect(account: Account, invoice: Json, method: Json | None = None, *, automatic: bool = True) -> Json:
    """Charges an open invoice to a payment method, the default one unless given; returns it.

    Args:
        account: Where.
        invoice: One that is open.
        method: What to charge.
        automatic: False when a person tries, which doesn't move the schedule of attempts.
    """
    method = method or default_of(account, invoices.subscription_of(account, invoice), invoice["customer"])
    intent = invoices.payment_intent_of(account, invoice)
    if intent is None:
        raise RuntimeError(f"Invoice {invoice['id']} is open without a payment intent.")
    if method is None:
        return _failed(account, invoice, automatic=automatic)
    return follow(account, payments.confirm(account, intent, method), automatic=automatic)


def follow(account: Account, intent: Json, *, automatic: bool = False) -> Json:
    """Brings an invoice and its subscription up to what became of its payment intent; returns it."""
    invoice = account.get("invoice", intent["_invoice"])
    if intent["status"] == "succeeded":
        invoice = invoices.mark_paid(account, invoice)
        standing.paid(account, invoice)
    elif intent["status"] == "processing":
        invoice = account.update(invoice, attempted=True, next_payment_attempt=None)
        standing.paid(account, invoice)
    else:
        if intent["status"] == "requires_action":
            events.emit(account, "invoice.payment_action_required", invoice)
        invoice = _failed(account, invoice, automatic=automatic)
    return invoice


def _failed(account: Account, invoice: Json, *, automatic: bool) -> Json:
    attempts = invoice["attempt_count"]
    next_attempt = invoice["next_payment_attempt"]
    if automatic or attempts == 0:
        attempts += 1
        next_attempt = _next_attempt(account, invoice, attempts)
    invoice = account.update(invoice, attempt_count=attempts, attempted=True, next_payment_attempt=next_attempt)
    events.emit(account, "invoice.payment_failed", invoice)
    standing.owing(account, invoice)
    if automatic and next_attempt is None:
        standing.given_up(account, invoice)
    return invoice


def _next_attempt(account: Account, invoice: Json, attempts: int) -> int | None:
    # Nobody tries again by himself for a subscription that never began: it waits for the customer.
    never_began = invoices.subscription_of(account, invoice)["status"] == "incomplete"
    if never_began or not invoice["auto_advance"]:
        return None
    days = account.settings.retry_days
    return account.now + days[attempts - 1] * DAY if attempts <= len(days) else None


def retry(account: Account, invoice: Json) -> None:
    """Makes the attempt of an invoice that is due."""
    invoice = account.update(invoice, next_payment_attempt=None)
    intent = invoices.payment_intent_of(account, invoice)
    if intent is not None and intent["status"] in {"requires_action", "requires_payment_method"}:
        collect(account, invoice)


def create_by_call(account: Account, params: Params) -> Json:
    """POST /v1/payment_intents: a payment outside of invoices; with `confirm` it is tried at once."""
    customer = params.text("customer")
    if customer is not None:
        account.get("customer", customer, param="customer")
    amount = params.integer("amount", least=1)
    if amount is None:
        raise params.refuse("amount", "Missing required param: amount.", "parameter_missing")
    currency, description = params.needed("currency"), params.text("description")
    confirm, chosen = params.flag("confirm", default=False), params.text("payment_method")
    metadata = params.metadata()
    params.finish()
    intent = payments.make(
        account, amount=amount, currency=currency, customer=customer, description=description, metadata=metadata
    )
    if confirm and chosen is not None:
        return pay(account, intent, found(account, chosen, param="payment_method"))
    return intent


def confirm_by_call(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/payment_intents/{id}/confirm: the customer pays, with `payment_method` or the one before."""
    intent = account.get("payment_intent", identifier)
    chosen = params.text("payment_method") or intent["payment_method"]
    params.text("return_url")
    params.finish()
    if chosen is None:
        raise params.refuse(
            "payment_method",
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            "payment_intent_unexpected_state",
        )
    return pay(account, intent, found(account, chosen, param="payment_method"))


def pay(account: Account, intent: Json, method: Json, *, authenticated: bool = False) -> Json:
    """Confirms a payment intent as a customer does; returns it.

    Raises:
        StripeApiError: 402 when the payment method declines; the attempt stays on record.
    """
    played = behaviour(method)
    if intent["customer"] is not None and played.attachable and method["customer"] is None:
        method = attached(account, method["id"], intent["customer"])
    intent = payments.confirm(account, intent, method, authenticated=authenticated)
    if intent["_invoice"] is not None:
        follow(account, intent)
    if intent["last_payment_error"] is not None and intent["status"] == "requires_payment_method":
        raise _declined(intent)
    return intent


def _declined(intent: Json) -> StripeApiError:
    error = intent["last_payment_error"]
    refusal = declined(error["decline_code"], charge=error["charge"], payment_intent=visible(intent))
    refusal.keeps = True
    return refusal


def pay_invoice_by_call(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/invoices/{id}/pay: an attempt out of turn.

    Raises:
        StripeApiError: 402 when the payment method declines; 400 when nothing is open, or nothing to
            charge it to.
    """
    invoice = account.get("invoice", identifier)
    chosen = params.text("payment_method")
    params.flag("off_session")
    params.finish()
    if invoice["status"] == "draft":
        invoice = invoices.finalize(account, invoice)
        if invoice["status"] == "paid":
            standing.paid(account, invoice)
            return invoice
    if invoice["status"] not in {"open", "uncollectible"}:
        raise StripeApiError(f"Invoice is already {invoice['status']}", code="invoice_not_editable")
    subscription = invoices.subscription_of(account, invoice)
    method = (
        found(account, chosen, param="payment_method")
        if chosen
        else default_of(account, subscription, invoice["customer"])
    )
    if method is None:
        raise missing_payment_method()
    collect(account, invoice, method, automatic=False)
    intent = invoices.payment_intent_of(account, invoice)
    if intent is not None and intent["status"] == "requires_payment_method":
        raise _declined(intent)
    return account.get("invoice", identifier)


def missing_payment_method() -> StripeApiError:
    """The 400 of a customer without anything to charge."""
    return StripeApiError(
        "This customer has no attached payment source or default payment method. Please consider adding a"
        " default payment method.",
        code="resource_missing",
    )
