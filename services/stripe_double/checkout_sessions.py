"""Checkout Sessions: read, listed, paid on the page of `pages.checkout`, expired by request or by time.

Since API version 2025-03-31.basil a session creates its subscription when it is completed, so a declined card leaves
nothing behind.
"""

from collections.abc import Callable

from services.stripe_double import billing, customers, events, invoices, payment_methods, payments, subscriptions
from services.stripe_double.account import Account, Json
from services.stripe_double.checkout_creation import KIND, create_session
from services.stripe_double.errors import StripeApiError, card_declined, not_supported
from services.stripe_double.params import Params
from services.stripe_double.prices import item_params
from services.stripe_double.rendering import checkout_line_item, filter_customer, filter_equal, list_page

STATUSES = ("complete", "expired", "open")


class AuthenticationRequired(Exception):
    """The card needs 3D Secure before the session can be completed."""


def retrieve_session(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/checkout/sessions/{id}."""
    params.reject_unknown()
    return account.get(KIND, identifier)


def list_sessions(account: Account, params: Params) -> Json:
    """GET /v1/checkout/sessions, by `customer`, `payment_intent`, `subscription` and `status`."""
    params.choice("status", STATUSES)
    found = filter_equal(params, filter_customer(account, params, KIND), "payment_intent", "subscription", "status")
    return list_page(account, params, "/v1/checkout/sessions", found)


def list_line_items(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/checkout/sessions/{id}/line_items."""
    items = [checkout_line_item(account, item) for item in account.get(KIND, identifier)["_items"]]
    return list_page(account, params, f"/v1/checkout/sessions/{identifier}/line_items", items)


def expire_session(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/checkout/sessions/{id}/expire."""
    params.reject_unknown()
    return expire(account, account.get(KIND, identifier))


def expire(account: Account, session: Json) -> Json:
    """Expire an open session, and return it.

    Raises:
        StripeApiError: it is not open.
    """
    if session["status"] != "open":
        raise StripeApiError(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Session has a status of'
            f" {session['status']}."
        )
    after = account.update(session, status="expired")
    events.emit(account, "checkout.session.expired", after)
    return after


def complete(
    account: Account,
    session: Json,
    method: str,
    *,
    authenticated: bool = False,
    email: str | None = None,
    promotion_code: str | None = None,
) -> Json:
    """Pay an open session as its customer does on the page, and return it.

    Args:
        account: The account.
        session: The session.
        method: A test payment method, `pm_card_visa`.
        authenticated: The customer has passed 3D Secure.
        email: Address of the customer to create, if the session has none.
        promotion_code: Code that the customer enters.

    Raises:
        AuthenticationRequired: The card needs 3D Secure.
        StripeApiError: 400 if the session is not open or the code can't be redeemed; 402 if the card is declined.
    """
    if session["status"] != "open":
        raise StripeApiError(f"This Checkout Session is {session['status']}.")
    behavior = payment_methods.TEST_PAYMENT_METHODS[method]
    if behavior.outcome == "declines" and (not behavior.attachable or session["amount_total"]):
        raise card_declined(behavior.decline_code)
    if behavior.outcome == "authenticates" and not authenticated:
        raise AuthenticationRequired
    customer = (
        session["customer"]
        or customers.create_customer(account, Params({"email": email or session["customer_email"] or ""}))["id"]
    )
    pay = _subscribe if session["mode"] == "subscription" else _pay_once
    paid = pay(account, {**session, "customer": customer}, method, promotion_code)
    owner = account.get("customer", customer)
    after = account.update(
        session,
        **paid,
        customer=customer,
        customer_details={
            "address": owner["address"],
            "business_name": None,
            "email": owner["email"],
            "individual_name": None,
            "name": owner["name"],
            "phone": owner["phone"],
            "tax_exempt": owner["tax_exempt"],
            "tax_ids": [],
        },
        status="complete",
    )
    events.emit(account, "checkout.session.completed", after)
    return after


def _subscribe(account: Account, session: Json, method_name: str, promotion_code: str | None) -> Json:
    discounts = [] if promotion_code is None else [{"promotion_code": _code_id(account, promotion_code)}]
    items = [item_params(item) for item in session["_items"]]
    created = subscriptions.create_subscription(
        account,
        Params(
            {
                "customer": session["customer"],
                "items": items,
                "payment_behavior": "default_incomplete",
                **({"discounts": discounts} if discounts else {}),
                **session["_subscription_data"],
            }
        ),
    )
    method = payment_methods.attach(account, method_name, session["customer"])
    before = account.get("subscription", created["id"])
    account.update(before, default_payment_method=method["id"], _defer_events=True)
    invoice = account.get("invoice", before["latest_invoice"])
    intent = invoices.payment_intent_of(account, invoice)
    if invoice["status"] == "open" and intent is not None:
        invoice = billing.apply_payment(account, payments.confirm(account, intent, method, authenticated=True))
    after = account.update(account.get("subscription", before["id"]), _defer_events=False)
    events.emit_if_changed(account, "customer.subscription.updated", before, after)
    status = "paid" if invoice["amount_due"] else "no_payment_required"
    return {
        "amount_total": invoice["total"],
        "invoice": invoice["id"],
        "payment_status": "unpaid" if invoice["status"] == "open" else status,
        "subscription": after["id"],
        "total_details": {
            **session["total_details"],
            "amount_discount": sum(each["amount"] for each in invoice["total_discount_amounts"]),
        },
    }


def _pay_once(account: Account, session: Json, method_name: str, promotion_code: str | None) -> Json:
    if promotion_code is not None:
        raise not_supported("promotion codes of one-time payments", "promotion_code")
    if not session["amount_total"]:
        return {"payment_status": "no_payment_required"}
    data = session["_payment_intent_data"]
    intent = payments.new_payment_intent(
        account,
        amount=session["amount_total"],
        currency=session["currency"],
        customer=session["customer"],
        description=data["description"],
        metadata=data["metadata"],
    )
    method = payment_methods.get_or_create(account, method_name)
    paid = payments.confirm(account, intent, method, authenticated=True)
    return {
        "payment_intent": paid["id"],
        "payment_status": "paid" if paid["status"] == "succeeded" else "unpaid",
    }


def _code_id(account: Account, code: str) -> str:
    found = next((each for each in account.all("promotion_code") if each["code"] == code and each["active"]), None)
    if found is None:
        raise StripeApiError("This code is invalid.", code="promotion_code_invalid", param="promotion_code")
    return str(found["id"])


def payment_settled(account: Account, intent: Json) -> None:
    """Emit the event of a session whose bank debit has succeeded or failed, days after it was completed."""
    session = next((each for each in account.owned(KIND, intent["customer"] or "") if _pays(each, intent)), None)
    if session is None or session["payment_status"] != "unpaid" or session["status"] != "complete":
        return
    succeeded = intent["status"] == "succeeded"
    after = account.update(session, payment_status="paid") if succeeded else session
    events.emit(account, f"checkout.session.async_payment_{'succeeded' if succeeded else 'failed'}", after)


def _pays(session: Json, intent: Json) -> bool:
    if session["payment_intent"] == intent["id"]:
        return True
    return session["invoice"] is not None and session["invoice"] == intent["_invoice"]


ROUTES: dict[str, Callable[..., Json]] = {
    "GET /v1/checkout/sessions": list_sessions,
    "POST /v1/checkout/sessions": create_session,
    "GET /v1/checkout/sessions/{}": retrieve_session,
    "POST /v1/checkout/sessions/{}/expire": expire_session,
    "GET /v1/checkout/sessions/{}/line_items": list_line_items,
}
"""All requests about Checkout Sessions; `{}` stands for an ID."""
