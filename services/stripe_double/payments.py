"""How does a payment go? Payment intents: made, confirmed, declined, settled, canceled."""

from typing import Any

from services.stripe_double import charges, disputes, events
from services.stripe_double.account import Account, Json
from services.stripe_double.clock import DAY
from services.stripe_double.errors import StripeApiError
from services.stripe_double.ids import new_id, token
from services.stripe_double.listing import of_customer, page
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import behaviour, declined
from services.stripe_double.presentation import visible

BANK_DEBIT_TIME = 4 * DAY
"""How long a bank debit is processing; Stripe says up to four business days."""
REASONS = ("abandoned", "duplicate", "fraudulent", "requested_by_customer")


def make(
    account: Account,
    *,
    amount: int,
    currency: str,
    customer: str | None,
    description: str | None = None,
    metadata: dict[str, str] | None = None,
    invoice: str | None = None,
) -> Json:
    """Makes a payment intent that awaits a payment method, and announces it."""
    identifier = new_id("payment_intent")
    intent = account.new(
        "payment_intent",
        amount=amount,
        amount_capturable=0,
        amount_details={"tip": {}},
        amount_received=0,
        application=None,
        application_fee_amount=None,
        automatic_payment_methods=None,
        canceled_at=None,
        cancellation_reason=None,
        capture_method="automatic",
        client_secret=f"{identifier}_secret_{token(25)}",
        confirmation_method="automatic",
        currency=currency,
        customer=customer,
        customer_account=None,
        description=description,
        excluded_payment_method_types=None,
        last_payment_error=None,
        latest_charge=None,
        metadata=metadata or {},
        next_action=None,
        on_behalf_of=None,
        payment_method=None,
        payment_method_configuration_details=None,
        payment_method_options={"card": {"request_three_d_secure": "automatic"}},
        payment_method_types=["card", "us_bank_account"],
        processing=None,
        receipt_email=None,
        review=None,
        setup_future_usage="off_session" if invoice else None,
        shipping=None,
        source=None,
        statement_descriptor=None,
        statement_descriptor_suffix=None,
        status="requires_payment_method",
        transfer_data=None,
        transfer_group=None,
        _invoice=invoice,
    )
    intent["id"] = identifier
    events.emit(account, "payment_intent.created", account.put(intent))
    return intent


def confirm(account: Account, intent: Json, method: Json, *, authenticated: bool = False) -> Json:
    """Charges a payment method as it behaves, and returns the payment intent after it.

    Args:
        account: Where.
        intent: One that is not over.
        method: What is charged.
        authenticated: The customer has proved to be the card's holder.

    Raises:
        StripeApiError: `payment_intent_unexpected_state`, when it is succeeded, processing or canceled.
    """
    if intent["status"] in {"succeeded", "processing", "canceled"}:
        raise StripeApiError(
            f"You cannot confirm this PaymentIntent because it has a status of {intent['status']}.",
            code="payment_intent_unexpected_state",
        )
    played = behaviour(method)
    if played.outcome == "declines":
        return _fail(account, intent, method, played.decline_code)
    if played.outcome == "authenticates" and not authenticated:
        after = account.update(
            intent,
            status="requires_action",
            payment_method=method["id"],
            next_action={"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}},
        )
        events.emit(account, "payment_intent.requires_action", after)
        return after
    if played.outcome in {"settles", "bounces"}:
        return _process(account, intent, method)
    return _succeed(account, intent, method)


def _fail(account: Account, intent: Json, method: Json, decline_code: str | None) -> Json:
    charge = charges.make(account, intent, method, "failed", decline_code)
    return _failed(account, intent, method, charge, decline_code)


def _failed(account: Account, intent: Json, method: Json, charge: Json, decline_code: str | None) -> Json:
    error = declined(decline_code, charge=charge["id"], payment_method=visible(method)).body()["error"]
    after = account.update(
        intent,
        status="requires_payment_method",
        payment_method=None,
        latest_charge=charge["id"],
        last_payment_error=error,
        next_action=None,
        processing=None,
    )
    events.emit(account, "payment_intent.payment_failed", after)
    return after


def _process(account: Account, intent: Json, method: Json) -> Json:
    charge = charges.make(account, intent, method, "pending")
    after = account.update(
        intent,
        status="processing",
        payment_method=method["id"],
        latest_charge=charge["id"],
        _settles_at=account.now + BANK_DEBIT_TIME,
    )
    events.emit(account, "payment_intent.processing", after)
    return after


def _succeed(account: Account, intent: Json, method: Json) -> Json:
    charge = charges.make(account, intent, method, "succeeded")
    after = _succeeded(account, intent, method, charge)
    outcome = behaviour(method).outcome
    if outcome in {"disputes", "inquires"}:
        disputes.open_dispute(account, charge, inquiry=outcome == "inquires")
    return after


def _succeeded(account: Account, intent: Json, method: Json, charge: Json) -> Json:
    after = account.update(
        intent,
        status="succeeded",
        amount_received=intent["amount"],
        payment_method=method["id"],
        latest_charge=charge["id"],
        last_payment_error=None,
        next_action=None,
        processing=None,
    )
    events.emit(account, "payment_intent.succeeded", after)
    return after


def settle(account: Account, intent: Json) -> Json:
    """Ends the processing of a bank debit as its test account says."""
    method = account.get("payment_method", intent["payment_method"])
    played = behaviour(method)
    succeeded = played.outcome == "settles"
    charge = account.get("charge", intent["latest_charge"])
    charge = charges.settle(account, charge, succeeded=succeeded, decline_code=played.decline_code)
    if succeeded:
        return _succeeded(account, intent, method, charge)
    return _failed(account, intent, method, charge, played.decline_code)


def cancel(account: Account, intent: Json, reason: str | None) -> Json:
    """Cancels a payment intent and announces it.

    Raises:
        StripeApiError: `payment_intent_unexpected_state`, when it is over or processing.
    """
    if intent["status"] in {"succeeded", "processing", "canceled"}:
        raise StripeApiError(
            f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}.",
            code="payment_intent_unexpected_state",
        )
    after = account.update(
        intent, status="canceled", canceled_at=account.now, cancellation_reason=reason, next_action=None
    )
    events.emit(account, "payment_intent.canceled", after)
    return after


def cancel_by_call(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/payment_intents/{id}/cancel."""
    reason = params.choice("cancellation_reason", REASONS)
    params.finish()
    intent = account.get("payment_intent", identifier)
    if intent["_invoice"] is not None:
        raise StripeApiError("You cannot cancel this PaymentIntent: it belongs to an invoice; void that instead.")
    return cancel(account, intent, reason)


def update(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/payment_intents/{id}: `description` and `metadata`; Stripe announces neither."""
    intent = account.get("payment_intent", identifier)
    changes: dict[str, Any] = {
        **params.given(("description",)),
        "metadata": params.metadata(intent["metadata"]),
    }
    params.finish()
    return account.update(intent, **changes)


def listed(account: Account, params: Params) -> Json:
    """GET /v1/payment_intents."""
    return page(account, params, "/v1/payment_intents", of_customer(account, params, "payment_intent"))
