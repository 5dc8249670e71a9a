"""Disputes and inquiries of charges, from opening to closing."""

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.clock import DAY
from services.stripe_double.errors import StripeApiError
from services.stripe_double.params import Params
from services.stripe_double.rendering import filter_equal, list_page

RESPONSE_TIME = 7 * DAY
DISPUTE_FEE = 1500
CLOSED = ("won", "lost", "warning_closed", "prevented")

_EVIDENCE = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
)
"""Members of a dispute's evidence, null until they are sent."""


def open_dispute(
    account: Account,
    charge: Json,
    *,
    reason: str = "fraudulent",
    amount: int | None = None,
    inquiry: bool = False,
) -> Json:
    """Open a dispute of a charge and return it.

    Args:
        account: The account.
        charge: A charge that succeeded.
        reason: Stripe's dispute reason.
        amount: Disputed amount; the whole charge by default.
        inquiry: Open an inquiry, which withdraws no funds yet.

    Raises:
        StripeApiError: The charge did not succeed, or is already disputed.
    """
    charge = account.get("charge", charge["id"])
    if charge["status"] != "succeeded" or charge["disputed"]:
        raise StripeApiError(f"Charge {charge['id']} can't be disputed.")
    dispute = account.new(
        "dispute",
        amount=charge["amount"] if amount is None else amount,
        balance_transactions=[],
        charge=charge["id"],
        currency=charge["currency"],
        enhanced_eligibility_types=[],
        evidence={**dict.fromkeys(_EVIDENCE), "enhanced_evidence": {}},
        evidence_details={
            "due_by": account.now + RESPONSE_TIME,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        is_charge_refundable=inquiry,
        metadata={},
        payment_intent=charge["payment_intent"],
        payment_method_details={
            "type": "card",
            "card": {
                "brand": "visa",
                "case_type": "inquiry" if inquiry else "chargeback",
                "network": "visa",
                "network_reason_code": "10.4",
            },
        },
        reason=reason,
        status="warning_needs_response" if inquiry else "needs_response",
    )
    account.put(dispute)
    account.update(charge, disputed=True)
    events.emit(account, "charge.dispute.created", dispute)
    if not inquiry:
        dispute = _move_funds(account, dispute, -dispute["amount"])
        events.emit(account, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def _move_funds(account: Account, dispute: Json, amount: int) -> Json:
    """Withdraw (a negative amount) or reinstate the disputed amount, with Stripe's fee; return the dispute."""
    fee = DISPUTE_FEE if amount < 0 else 0
    moved = account.new(
        "balance_transaction",
        amount=amount,
        available_on=account.now,
        balance_type="payments",
        currency=dispute["currency"],
        description=f"Chargeback {'withdrawal' if amount < 0 else 'reversal'} for {dispute['charge']}",
        exchange_rate=None,
        fee=fee,
        fee_details=[
            {
                "amount": fee,
                "application": None,
                "currency": dispute["currency"],
                "description": "Dispute fee",
                "type": "stripe_fee",
            }
        ]
        if fee
        else [],
        net=amount - fee,
        reporting_category="dispute" if amount < 0 else "dispute_reversal",
        source=dispute["id"],
        status="available",
        type="adjustment",
    )
    public = {name: value for name, value in moved.items() if name != "livemode"}
    return account.update(dispute, balance_transactions=[*dispute["balance_transactions"], public])


def escalate(account: Account, dispute: Json) -> Json:
    """Turn an inquiry into a chargeback, which withdraws the funds; return the dispute.

    Raises:
        StripeApiError: The dispute is not an open inquiry.
    """
    if not dispute["status"].startswith("warning_") or dispute["status"] in CLOSED:
        raise StripeApiError(f"A dispute that is {dispute['status']} can't become a chargeback.")
    after = account.update(dispute, status="needs_response", is_charge_refundable=False)
    events.emit(account, "charge.dispute.updated", after, before=dispute)
    after = _move_funds(account, after, -after["amount"])
    events.emit(account, "charge.dispute.funds_withdrawn", after)
    return after


def close(account: Account, dispute: Json, status: str) -> Json:
    """Close a dispute and return it.

    Args:
        account: The account.
        dispute: A dispute that is not closed.
        status: `won`, `lost` or `prevented`; `warning_closed` for an inquiry.

    Raises:
        StripeApiError: The dispute is already closed, or the status is for the other kind of dispute.
    """
    if dispute["status"] in CLOSED:
        raise StripeApiError("This dispute is already closed.")
    inquiry = dispute["status"].startswith("warning_")
    if status not in CLOSED or (status == "warning_closed") != inquiry:
        raise StripeApiError(f"A dispute that is {dispute['status']} can't become {status}.")
    after = account.update(dispute, status=status)
    if status == "won":
        after = _move_funds(account, after, after["amount"])
        events.emit(account, "charge.dispute.funds_reinstated", after)
    events.emit(account, "charge.dispute.closed", after, before=dispute)
    return after


def close_dispute(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/disputes/{id}/close: the merchant accepts the dispute, so it is lost."""
    params.reject_unknown()
    return close(account, account.get("dispute", identifier), "lost")


def update_dispute(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/disputes/{id}: `evidence`, which is sent to the bank unless `submit` is false; `metadata`."""
    dispute = account.get("dispute", identifier)
    evidence = params.nested("evidence")
    submit = params.boolean("submit", default=True)
    metadata = params.metadata(dispute["metadata"])
    params.reject_unknown()
    changes: Json = {"metadata": metadata}
    if evidence is not None:
        changes["evidence"] = {**dispute["evidence"], **evidence.values}
        changes["evidence_details"] = {**dispute["evidence_details"], "has_evidence": True}
        if submit:
            inquiry = dispute["status"].startswith("warning_")
            changes["status"] = "warning_under_review" if inquiry else "under_review"
            changes["evidence_details"] |= {"submission_count": 1, "submission_method": "manual"}
    return events.emit_if_changed(account, "charge.dispute.updated", dispute, account.update(dispute, **changes))


def list_disputes(account: Account, params: Params) -> Json:
    """GET /v1/disputes."""
    disputes = filter_equal(params, account.all("dispute"), "charge", "payment_intent")
    return list_page(account, params, "/v1/disputes", disputes)
