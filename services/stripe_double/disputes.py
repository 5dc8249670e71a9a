"""Who wants their money back through the bank? Disputes and inquiries, from opening to closing."""

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.clock import DAY
from services.stripe_double.errors import StripeApiError
from services.stripe_double.listing import filtered, page
from services.stripe_double.params import Params

RESPONSE_TIME = 7 * DAY
CLOSED = ("won", "lost", "warning_closed", "prevented")


def open_dispute(
    account: Account,
    charge: Json,
    *,
    reason: str = "fraudulent",
    amount: int | None = None,
    inquiry: bool = False,
) -> Json:
    """Opens a dispute of a charge; an inquiry asks only, and takes no money yet.

    Raises:
        StripeApiError: The charge was not paid, or is disputed already.
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
        evidence={},
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
        events.emit(account, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def escalate(account: Account, dispute: Json) -> Json:
    """Makes a chargeback of an inquiry: the money is taken now.

    Raises:
        StripeApiError: It is no inquiry that is open.
    """
    if not dispute["status"].startswith("warning_") or dispute["status"] in CLOSED:
        raise StripeApiError(f"A dispute that is {dispute['status']} can't become a chargeback.")
    after = account.update(dispute, status="needs_response", is_charge_refundable=False)
    events.emit(account, "charge.dispute.updated", after, before=dispute)
    events.emit(account, "charge.dispute.funds_withdrawn", after)
    return after


def close(account: Account, dispute: Json, status: str) -> Json:
    """Ends a dispute.

    Args:
        account: Where.
        dispute: One that is open.
        status: `won`, `lost`, `prevented`, or `warning_closed` for an inquiry that came to nothing.

    Raises:
        StripeApiError: It is closed already, or ended as only the other kind can.
    """
    if dispute["status"] in CLOSED:
        raise StripeApiError("This dispute is already closed.")
    inquiry = dispute["status"].startswith("warning_")
    if status not in CLOSED or (status == "warning_closed") != inquiry:
        raise StripeApiError(f"A dispute that is {dispute['status']} can't become {status}.")
    after = account.update(dispute, status=status)
    if status == "won":
        events.emit(account, "charge.dispute.funds_reinstated", after)
    events.emit(account, "charge.dispute.closed", after, before=dispute)
    return after


def close_by_call(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/disputes/{id}/close: the merchant gives in, so it is lost."""
    params.finish()
    return close(account, account.get("dispute", identifier), "lost")


def update(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/disputes/{id}: evidence; with `submit` it goes to the bank."""
    dispute = account.get("dispute", identifier)
    evidence = params.child("evidence")
    submit = params.flag("submit", default=True)
    metadata = params.metadata(dispute["metadata"])
    params.finish()
    changes: Json = {"metadata": metadata}
    if evidence is not None:
        changes["evidence"] = {**dispute["evidence"], **evidence.values}
        changes["evidence_details"] = {**dispute["evidence_details"], "has_evidence": True}
        if submit:
            inquiry = dispute["status"].startswith("warning_")
            changes["status"] = "warning_under_review" if inquiry else "under_review"
            changes["evidence_details"] |= {"submission_count": 1, "submission_method": "manual"}
    return events.changed(account, "charge.dispute.updated", dispute, account.update(dispute, **changes))


def listed(account: Account, params: Params) -> Json:
    """GET /v1/disputes."""
    found = filtered(params, account.all("dispute"), "charge", "payment_intent")
    return page(account, params, "/v1/disputes", found)
