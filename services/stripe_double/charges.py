"""What was taken from a payment method? Charges, made by payment intents only."""

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.ids import token
from services.stripe_double.listing import filtered, of_customer, page
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import behaviour


def make(account: Account, intent: Json, method: Json, status: str, decline_code: str | None = None) -> Json:
    """Makes the charge of one attempt and announces it.

    Args:
        account: Where.
        intent: The payment intent that is attempted.
        method: What is charged.
        status: `succeeded`, `pending` or `failed`.
        decline_code: Why it failed.
    """
    failed, succeeded = status == "failed", status == "succeeded"
    charge = account.new(
        "charge",
        amount=intent["amount"],
        amount_captured=intent["amount"] if succeeded else 0,
        amount_refunded=0,
        application=None,
        application_fee=None,
        application_fee_amount=None,
        balance_transaction=f"txn_3{token(23)}" if succeeded else None,
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
        payment_method_details=_details(method),
        radar_options={},
        receipt_email=None,
        receipt_number=None,
        receipt_url=None,
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


def _details(method: Json) -> Json:
    kind = method["type"]
    played = behaviour(method)
    shown = {"fingerprint": method[kind]["fingerprint"], "last4": played.last4}
    if kind == "card":
        card = method["card"]
        shown |= {name: card[name] for name in ("brand", "country", "exp_month", "exp_year", "funding")}
        shown |= {"network": played.brand, "three_d_secure": None, "wallet": None}
    return {"type": kind, kind: shown}


def settle(account: Account, charge: Json, *, succeeded: bool, decline_code: str | None) -> Json:
    """Ends a pending charge and announces how."""
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


def update(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/charges/{id}: `description` and `metadata`."""
    charge = account.get("charge", identifier)
    changes = {**params.given(("description",)), "metadata": params.metadata(charge["metadata"])}
    params.finish()
    return events.changed(account, "charge.updated", charge, account.update(charge, **changes))


def listed(account: Account, params: Params) -> Json:
    """GET /v1/charges."""
    charges = filtered(params, of_customer(account, params, "charge"), "payment_intent")
    return page(account, params, "/v1/charges", charges)
