"""Payment intents, charges and refunds.

Requests that create, confirm or pay are in `billing`, because a payment also changes its invoice and subscription.
"""

from typing import Any

from services.stripe_double import disputes, events
from services.stripe_double.account import Account, Json, new_id, random_string
from services.stripe_double.clock import DAY
from services.stripe_double.errors import StripeApiError, card_declined
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import behavior_of, charge_details
from services.stripe_double.rendering import filter_customer, filter_equal, list_page, public_members

BANK_DEBIT_TIME = 4 * DAY
"""Time that a bank debit is processing; Stripe says up to four business days."""
CANCELLATION_REASONS = ("abandoned", "duplicate", "fraudulent", "requested_by_customer")
REFUND_REASONS = ("duplicate", "fraudulent", "requested_by_customer")
LOCKED = ("succeeded", "processing", "canceled")
"""Statuses of a payment intent that can be neither confirmed nor canceled."""


def new_payment_intent(
    account: Account,
    *,
    amount: int,
    currency: str,
    customer: str | None,
    description: str | None = None,
    metadata: dict[str, str] | None = None,
    invoice: str | None = None,
) -> Json:
    """Create a payment intent with status `requires_payment_method` and return it."""
    identifier = new_id("payment_intent")
    intent = account.new(
        "payment_intent",
        allowed_payment_method_types=None,
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
        client_secret=f"{identifier}_secret_{random_string(25)}",
        confirmation_method="automatic",
        currency=currency,
        customer=customer,
        customer_account=None,
        description=description,
        excluded_payment_method_types=None,
        last_payment_error=None,
        latest_charge=None,
        managed_payments=None,
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


def confirm(
    account: Account, intent: Json, method: Json, *, authenticated: bool = False, declines: bool = False
) -> Json:
    """Charge a payment method according to its test behavior; return the payment intent.

    Args:
        account: The account.
        intent: The payment intent.
        method: The payment method to charge.
        authenticated: The customer has passed 3D Secure.
        declines: The bank declines this payment, whatever the method's test behavior is.

    Raises:
        StripeApiError: `payment_intent_unexpected_state` if it is succeeded, processing or canceled.
    """
    _require_open(intent, "confirm")
    behavior = behavior_of(method)
    if declines or behavior.outcome == "declines":
        code = behavior.decline_code or "generic_decline"
        return _fail(account, intent, method, _new_charge(account, intent, method, "failed", code), code)
    if behavior.outcome == "authenticates" and not authenticated:
        after = account.update(
            intent,
            status="requires_action",
            payment_method=method["id"],
            next_action={"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}},
        )
        events.emit(account, "payment_intent.requires_action", after)
        return after
    if behavior.outcome in {"settles", "bounces"}:
        return _process(account, intent, method)
    charge = _new_charge(account, intent, method, "succeeded")
    after = _succeed(account, intent, method, charge)
    if behavior.outcome in {"disputes", "inquires"}:
        disputes.open_dispute(account, charge, inquiry=behavior.outcome == "inquires")
    return after


def _process(account: Account, intent: Json, method: Json) -> Json:
    charge = _new_charge(account, intent, method, "pending")
    after = account.update(
        intent,
        status="processing",
        payment_method=method["id"],
        latest_charge=charge["id"],
        _settles_at=account.now + BANK_DEBIT_TIME,
    )
    events.emit(account, "payment_intent.processing", after)
    return after


def settle_bank_debit(account: Account, intent: Json) -> Json:
    """End the processing of a bank debit according to its test behavior; return the payment intent."""
    method = account.get("payment_method", intent["payment_method"])
    behavior = behavior_of(method)
    succeeded = behavior.outcome == "settles"
    charge = account.get("charge", intent["latest_charge"])
    charge = _settle_charge(account, charge, succeeded=succeeded, decline_code=behavior.decline_code)
    if succeeded:
        return _succeed(account, intent, method, charge)
    return _fail(account, intent, method, charge, behavior.decline_code)


def _succeed(account: Account, intent: Json, method: Json, charge: Json) -> Json:
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


def _fail(account: Account, intent: Json, method: Json, charge: Json, decline_code: str | None) -> Json:
    error = card_declined(decline_code, charge=charge["id"], payment_method=public_members(method)).body()["error"]
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


def cancel(account: Account, intent: Json, reason: str | None) -> Json:
    """Cancel a payment intent and return it.

    Raises:
        StripeApiError: `payment_intent_unexpected_state` if it is succeeded, processing or canceled.
    """
    _require_open(intent, "cancel")
    after = account.update(
        intent, status="canceled", canceled_at=account.now, cancellation_reason=reason, next_action=None
    )
    events.emit(account, "payment_intent.canceled", after)
    return after


def _require_open(intent: Json, action: str) -> None:
    if intent["status"] in LOCKED:
        raise StripeApiError(
            f"You cannot {action} this PaymentIntent because it has a status of {intent['status']}.",
            code="payment_intent_unexpected_state",
        )


def cancel_payment_intent(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/payment_intents/{id}/cancel; one of an invoice is canceled only by voiding the invoice."""
    reason = params.choice("cancellation_reason", CANCELLATION_REASONS)
    params.reject_unknown()
    intent = account.get("payment_intent", identifier)
    if intent["_invoice"] is not None:
        raise StripeApiError("You cannot cancel this PaymentIntent: it belongs to an invoice; void that instead.")
    return cancel(account, intent, reason)


def update_payment_intent(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/payment_intents/{id}: `description` and `metadata`. Stripe sends no event for either."""
    intent = account.get("payment_intent", identifier)
    changes: dict[str, Any] = {
        **params.sent_strings(("description",)),
        "metadata": params.metadata(intent["metadata"]),
    }
    params.reject_unknown()
    return account.update(intent, **changes)


def list_payment_intents(account: Account, params: Params) -> Json:
    """GET /v1/payment_intents."""
    return list_page(account, params, "/v1/payment_intents", filter_customer(account, params, "payment_intent"))


def _new_charge(account: Account, intent: Json, method: Json, status: str, decline_code: str | None = None) -> Json:
    """Create the charge of one payment attempt, with status `succeeded`, `pending` or `failed`; return it."""
    failed, succeeded = status == "failed", status == "succeeded"
    charge = account.new(
        "charge",
        amount=intent["amount"],
        amount_captured=intent["amount"] if succeeded else 0,
        amount_refunded=0,
        application=None,
        application_fee=None,
        application_fee_amount=None,
        balance_transaction=f"txn_3{random_string(23)}" if succeeded else None,
        billing_details=method["billing_details"],
        calculated_statement_descriptor="DOUBLE",
        captured=not failed,
        currency=intent["currency"],
        customer=intent["customer"],
        description=intent["description"],
        disputed=False,
        failure_balance_transaction=None,
        failure_code="card_declined" if failed else None,
        failure_message="Your card was declined." if failed else None,
        fraud_details={},
        metadata=intent["metadata"],
        on_behalf_of=None,
        outcome=_outcome(status, decline_code),
        paid=succeeded,
        payment_intent=intent["id"],
        payment_method=method["id"],
        payment_method_details=charge_details(method, intent["amount"]),
        radar_options={},
        receipt_email=None,
        receipt_number=None,
        refunded=False,
        review=None,
        shipping=None,
        source=None,
        source_transfer=None,
        statement_descriptor=None,
        statement_descriptor_suffix=None,
        status=status,
        transfer_data=None,
        transfer_group=None,
    )
    events.emit(account, f"charge.{status}", account.put(charge))
    return charge


def _outcome(status: str, decline_code: str | None) -> Json:
    failed = status == "failed"
    return {
        "advice_code": "try_again_later" if failed else None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network" if failed else "approved_by_network",
        "reason": decline_code,
        "risk_level": "normal",
        "risk_score": 20,
        "seller_message": "The bank did not return any further details with this decline."
        if failed
        else "Payment complete.",
        "type": "issuer_declined" if failed else "authorized",
    }


def _settle_charge(account: Account, charge: Json, *, succeeded: bool, decline_code: str | None) -> Json:
    changes: Json = {"status": "succeeded", "paid": True, "amount_captured": charge["amount"]}
    if not succeeded:
        changes = {
            "status": "failed",
            "captured": False,
            "failure_code": decline_code,
            "failure_message": "The bank returned the debit.",
            "outcome": _outcome("failed", decline_code),
        }
    after = account.update(charge, **changes)
    events.emit(account, f"charge.{after['status']}", after)
    return after


def update_charge(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/charges/{id}: `description` and `metadata`."""
    charge = account.get("charge", identifier)
    changes = {**params.sent_strings(("description",)), "metadata": params.metadata(charge["metadata"])}
    params.reject_unknown()
    return events.emit_if_changed(account, "charge.updated", charge, account.update(charge, **changes))


def list_charges(account: Account, params: Params) -> Json:
    """GET /v1/charges."""
    charges = filter_equal(params, filter_customer(account, params, "charge"), "payment_intent")
    return list_page(account, params, "/v1/charges", charges)


def create_refund(account: Account, params: Params) -> Json:
    """POST /v1/refunds, of a `charge` or of the latest charge of a `payment_intent`."""
    charge = _charge_to_refund(account, params)
    amount = params.integer("amount", minimum=1)
    reason = params.choice("reason", REFUND_REASONS)
    metadata = params.metadata()
    params.reject_unknown()
    return refund(account, charge, amount=amount, reason=reason, metadata=metadata)


def _charge_to_refund(account: Account, params: Params) -> Json:
    charge_id = params.string("charge")
    intent_id = params.string("payment_intent")
    if charge_id is None and intent_id is None:
        raise StripeApiError(
            "One of the following params should be provided for this request: payment_intent or charge.",
            code="parameter_missing",
        )
    if charge_id is None and intent_id is not None:
        charge_id = account.get("payment_intent", intent_id, param="payment_intent")["latest_charge"]
        if charge_id is None:
            raise params.invalid("payment_intent", "This PaymentIntent does not have a successful charge to refund.")
    return account.get("charge", str(charge_id), param="charge")


def refund(
    account: Account,
    charge: Json,
    *,
    amount: int | None = None,
    reason: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Json:
    """Refund an amount of a charge, by default all that is not yet refunded; return the refund.

    A refund never cancels a subscription.

    Raises:
        StripeApiError: `charge_already_refunded`, `charge_disputed`, or an amount above what remains.
    """
    remaining = charge["amount_captured"] - charge["amount_refunded"]
    if charge["refunded"]:
        raise StripeApiError(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    if charge["status"] != "succeeded":
        raise StripeApiError(f"Charge {charge['id']} was not paid, so it can't be refunded.", param="charge")
    if charge["disputed"]:
        raise StripeApiError(f"Charge {charge['id']} has been charged back.", code="charge_disputed")
    if amount is not None and amount > remaining:
        raise StripeApiError(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({remaining}).",
            code="amount_too_large",
            param="amount",
        )
    refunded = remaining if amount is None else amount
    entry = account.new(
        "refund",
        amount=refunded,
        balance_transaction=f"txn_3{random_string(23)}",
        charge=charge["id"],
        currency=charge["currency"],
        destination_details={"card": {"type": "refund"}, "type": "card"},
        metadata=metadata or {},
        payment_intent=charge["payment_intent"],
        reason=reason,
        receipt_number=None,
        source_transfer_reversal=None,
        status="succeeded",
        transfer_reversal=None,
    )
    del entry["livemode"]  # Stripe's refunds don't have it.
    account.put(entry)
    total = charge["amount_refunded"] + refunded
    after = account.update(charge, amount_refunded=total, refunded=total == charge["amount_captured"])
    events.emit(account, "charge.refunded", after, before=charge)
    events.emit(account, "refund.created", entry)
    return entry


def fail_refund(account: Account, entry: Json) -> Json:
    """Fail a refund that the customer's bank returned to the merchant; return the refund.

    Raises:
        StripeApiError: The refund has already failed.
    """
    if entry["status"] == "failed":
        raise StripeApiError(f"Refund {entry['id']} has failed already.")
    after = account.update(entry, status="failed", failure_reason="lost_or_stolen_card")
    charge = account.get("charge", entry["charge"])
    total = charge["amount_refunded"] - entry["amount"]
    without = account.update(charge, amount_refunded=total, refunded=False)
    events.emit_if_changed(account, "charge.updated", charge, without)
    for event_type in ("charge.refund.updated", "refund.updated", "refund.failed"):
        events.emit(account, event_type, after, before=entry)
    return after


def update_refund(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/refunds/{id}: `metadata`."""
    entry = account.get("refund", identifier)
    metadata = params.metadata(entry["metadata"])
    params.reject_unknown()
    return events.emit_if_changed(account, "refund.updated", entry, account.update(entry, metadata=metadata))


def list_refunds(account: Account, params: Params) -> Json:
    """GET /v1/refunds."""
    refunds = filter_equal(params, account.all("refund"), "charge", "payment_intent")
    return list_page(account, params, "/v1/refunds", refunds)


def list_charge_refunds(account: Account, params: Params, charge: str) -> Json:
    """GET /v1/charges/{id}/refunds."""
    account.get("charge", charge)
    return list_page(account, params, f"/v1/charges/{charge}/refunds", account.owned("refund", charge))
