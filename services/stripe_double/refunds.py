"""What was given back? Refunds, whole or in part; none of them cancels a subscription."""

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError
from services.stripe_double.ids import token
from services.stripe_double.listing import filtered, page
from services.stripe_double.params import Params

REASONS = ("duplicate", "fraudulent", "requested_by_customer")


def create(account: Account, params: Params) -> Json:
    """POST /v1/refunds, of a `charge` or of a `payment_intent`'s last one."""
    charge = _charge(account, params)
    amount = params.integer("amount", least=1)
    reason = params.choice("reason", REASONS)
    metadata = params.metadata()
    params.finish()
    return refund(account, charge, amount=amount, reason=reason, metadata=metadata)


def _charge(account: Account, params: Params) -> Json:
    identifier = params.text("charge")
    intent_id = params.text("payment_intent")
    if identifier is None and intent_id is None:
        raise StripeApiError(
            "One of the following params should be provided for this request: payment_intent or charge.",
            code="parameter_missing",
        )
    if identifier is None and intent_id is not None:
        identifier = account.get("payment_intent", intent_id, param="payment_intent")["latest_charge"]
        if identifier is None:
            raise params.refuse("payment_intent", "This PaymentIntent does not have a successful charge to refund.")
    return account.get("charge", str(identifier), param="charge")


def refund(
    account: Account,
    charge: Json,
    *,
    amount: int | None = None,
    reason: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Json:
    """Gives back an amount of a charge, what is left of it by default; returns the refund.

    Raises:
        StripeApiError: `charge_already_refunded`, `charge_disputed`, or an amount above what is left.
    """
    left = charge["amount_captured"] - charge["amount_refunded"]
    if charge["refunded"]:
        raise StripeApiError(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    if charge["status"] != "succeeded":
        raise StripeApiError(f"Charge {charge['id']} was not paid, so it can't be refunded.", param="charge")
    if charge["disputed"]:
        raise StripeApiError(f"Charge {charge['id']} has been charged back.", code="charge_disputed")
    if amount is not None and amount > left:
        raise StripeApiError(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).",
            code="amount_too_large",
            param="amount",
        )
    given_back = left if amount is None else amount
    entry = account.new(
        "refund",
        amount=given_back,
        balance_transaction=f"txn_3{token(23)}",
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
    del entry["livemode"]  # Stripe's refunds don't have it
    account.put(entry)
    total = charge["amount_refunded"] + given_back
    after = account.update(charge, amount_refunded=total, refunded=total == charge["amount_captured"])
    events.emit(account, "charge.refunded", after, before=charge)
    events.emit(account, "refund.created", entry)
    return entry


def fail(account: Account, entry: Json) -> Json:
    """The customer's bank sends a refund back; the money is the merchant's again.

    Raises:
        StripeApiError: It failed before.
    """
    if entry["status"] == "failed":
        raise StripeApiError(f"Refund {entry['id']} has failed already.")
    after = account.update(entry, status="failed", failure_reason="lost_or_stolen_card")
    charge = account.get("charge", entry["charge"])
    left = charge["amount_refunded"] - entry["amount"]
    events.changed(account, "charge.updated", charge, account.update(charge, amount_refunded=left, refunded=False))
    for kind in ("charge.refund.updated", "refund.updated", "refund.failed"):
        events.emit(account, kind, after, before=entry)
    return after


def update(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/refunds/{id}: `metadata` alone."""
    entry = account.get("refund", identifier)
    metadata = params.metadata(entry["metadata"])
    params.finish()
    return events.changed(account, "refund.updated", entry, account.update(entry, metadata=metadata))


def listed(account: Account, params: Params) -> Json:
    """GET /v1/refunds."""
    return page(account, params, "/v1/refunds", filtered(params, account.all("refund"), "charge", "payment_intent"))


def listed_of_charge(account: Account, params: Params, charge: str) -> Json:
    """GET /v1/charges/{id}/refunds."""
    account.get("charge", charge)
    return page(account, params, f"/v1/charges/{charge}/refunds", account.owned("refund", charge))
