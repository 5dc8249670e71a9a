"""Payment methods: Stripe's test cards and test bank accounts, attached to customers."""

from dataclasses import dataclass
from hashlib import sha256

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError, card_declined, not_supported, resource_missing
from services.stripe_double.params import Params
from services.stripe_double.rendering import filter_customer, filter_equal, list_page

ADDRESS = ("city", "country", "line1", "line2", "postal_code", "state")
"""Members of an address."""


@dataclass(frozen=True)
class Behavior:
    """Behavior of a test payment method when it is charged."""

    brand: str
    last4: str
    outcome: str = "succeeds"
    """`succeeds`; `declines`; `authenticates` (requires 3D Secure); `settles` or `bounces` (a bank debit that
    is processing for days, then succeeds or fails); `disputes` or `inquires` (succeeds, then is disputed)."""
    decline_code: str | None = None
    attachable: bool = True
    """Whether it can be attached to a customer; cards that Stripe declines at once can't."""
    kind: str = "card"


TEST_PAYMENT_METHODS = {
    "pm_card_visa": Behavior("visa", "4242"),
    "pm_card_visa_debit": Behavior("visa", "5556"),
    "pm_card_mastercard": Behavior("mastercard", "4444"),
    "pm_card_amex": Behavior("amex", "8431"),
    "pm_card_discover": Behavior("discover", "9424"),
    "pm_card_chargeCustomerFail": Behavior("visa", "0341", "declines", "generic_decline"),
    "pm_card_chargeDeclined": Behavior("visa", "0002", "declines", "generic_decline", attachable=False),
    "pm_card_visa_chargeDeclined": Behavior("visa", "0002", "declines", "generic_decline", attachable=False),
    "pm_card_chargeDeclinedInsufficientFunds": Behavior(
        "visa", "9995", "declines", "insufficient_funds", attachable=False
    ),
    "pm_card_chargeDeclinedLostCard": Behavior("visa", "9987", "declines", "lost_card", attachable=False),
    "pm_card_chargeDeclinedExpiredCard": Behavior("visa", "0069", "declines", "expired_card", attachable=False),
    "pm_card_authenticationRequired": Behavior("visa", "3184", "authenticates"),
    "pm_card_createDispute": Behavior("visa", "0259", "disputes"),
    "pm_card_createDisputeInquiry": Behavior("visa", "1976", "inquires"),
    "pm_usBankAccount_success": Behavior("STRIPE TEST BANK", "6789", "settles", kind="us_bank_account"),
    "pm_usBankAccount_insufficientFunds": Behavior(
        "STRIPE TEST BANK", "2227", "bounces", "insufficient_funds", kind="us_bank_account"
    ),
}
"""Stripe's test payment methods (docs.stripe.com/testing).

`pm_card_chargeCustomerFail` can be attached to a customer; each charge of it declines.
"""


def behavior_of(payment_method: Json) -> Behavior:
    """Return the behavior of a stored payment method."""
    return TEST_PAYMENT_METHODS[payment_method["_test"]]


def create_payment_method(account: Account, params: Params) -> Json:
    """POST /v1/payment_methods: a card given by a test token (`card[token]=tok_visa`)."""
    if params.choice("type", ("card",)) is None:
        raise params.missing("type")
    card = params.nested("card")
    token = card.string("token") if card else None
    name = f"pm_card_{token.removeprefix('tok_')}" if token else ""
    metadata = params.metadata()
    if card is not None:
        card.reject_unknown()
    params.reject_unknown()
    if name not in TEST_PAYMENT_METHODS:
        raise not_supported(f"payment methods other than Stripe's test tokens (not {token})", "card[token]")
    return _create(account, name, metadata)


def _create(account: Account, name: str, metadata: dict[str, str] | None = None) -> Json:
    behavior = TEST_PAYMENT_METHODS[name]
    details = _card(behavior) if behavior.kind == "card" else _bank_account(behavior)
    method = account.new(
        "payment_method",
        allow_redisplay="unspecified",
        billing_details={"address": dict.fromkeys(ADDRESS), "email": None, "name": None, "phone": None, "tax_id": None},
        customer=None,
        customer_account=None,
        metadata=metadata or {},
        type=behavior.kind,
        _test=name,
    )
    return account.put({**method, behavior.kind: details})


def _fingerprint(behavior: Behavior) -> str:
    # The fingerprint depends on the card alone, not on the customer: trial abuse is detected by it.
    return sha256(f"{behavior.kind}{behavior.brand}{behavior.last4}".encode()).hexdigest()[:16]


def _card(behavior: Behavior) -> Json:
    return {
        "brand": behavior.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "pass",
        },
        "country": "US",
        "display_brand": behavior.brand,
        "exp_month": 12,
        "exp_year": 2040,
        "fingerprint": _fingerprint(behavior),
        "funding": "credit",
        "generated_from": None,
        "last4": behavior.last4,
        "networks": {"available": [behavior.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def _bank_account(behavior: Behavior) -> Json:
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": behavior.brand,
        "fingerprint": _fingerprint(behavior),
        "last4": behavior.last4,
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": "110000000",
    }


def get_or_create(account: Account, identifier: str, *, param: str | None = None) -> Json:
    """Return a payment method; the name of a test method such as `pm_card_visa` creates a new one each time."""
    if identifier in TEST_PAYMENT_METHODS:
        return _create(account, identifier)
    return account.get("payment_method", identifier, param=param)


def attach(account: Account, identifier: str, customer: str, *, param: str | None = None) -> Json:
    """Attach a payment method to a customer and return it.

    Raises:
        StripeApiError: 402 `card_declined` for the test cards that can't be attached; 400 if it is attached
            to another customer.
    """
    before = get_or_create(account, identifier, param=param)
    behavior = behavior_of(before)
    if before["customer"] == customer:
        return before
    if before["customer"] is not None:
        raise StripeApiError(
            "The payment method you provided has already been attached to a customer.",
            code="payment_method_unexpected_state",
            param=param,
        )
    if not behavior.attachable:
        raise card_declined(behavior.decline_code)
    after = account.update(before, customer=customer)
    events.emit(account, "payment_method.attached", after)
    return after


def detach(account: Account, method: Json) -> Json:
    """Detach a payment method for good, and unset it where it is the default of customer or subscription."""
    owner = method["customer"]
    after = account.update(method, customer=None)
    events.emit(account, "payment_method.detached", after, before=method)
    customer = account.find("customer", owner) if owner else None
    if customer and not customer.get("deleted"):
        settings = customer["invoice_settings"]
        if settings["default_payment_method"] == method["id"]:
            cleared = account.update(customer, invoice_settings={**settings, "default_payment_method": None})
            events.emit_if_changed(account, "customer.updated", customer, cleared)
    for subscription in account.owned("subscription", owner) if owner else []:
        if subscription["default_payment_method"] == method["id"]:
            without = account.update(subscription, default_payment_method=None)
            events.emit_if_changed(account, "customer.subscription.updated", subscription, without)
    return after


def attach_payment_method(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/payment_methods/{id}/attach."""
    customer = params.required("customer")
    params.reject_unknown()
    account.get("customer", customer, param="customer")
    return attach(account, identifier, customer)


def detach_payment_method(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/payment_methods/{id}/detach."""
    params.reject_unknown()
    method = account.get("payment_method", identifier)
    if method["customer"] is None:
        raise StripeApiError("The payment method you provided is not attached to a customer.")
    return detach(account, method)


def list_payment_methods(account: Account, params: Params) -> Json:
    """GET /v1/payment_methods."""
    attached = [method for method in filter_customer(account, params, "payment_method") if method["customer"]]
    return list_page(account, params, "/v1/payment_methods", filter_equal(params, attached, "type"))


def list_customer_payment_methods(account: Account, params: Params, customer: str) -> Json:
    """GET /v1/customers/{id}/payment_methods."""
    if account.get("customer", customer).get("deleted"):
        raise resource_missing("customer", customer)
    methods = filter_equal(params, account.owned("payment_method", customer), "type")
    return list_page(account, params, f"/v1/customers/{customer}/payment_methods", methods)


def default_of(account: Account, subscription: Json | None, customer: str) -> Json | None:
    """Return the payment method that invoices are charged to: the subscription's default, else the customer's."""
    default = subscription["default_payment_method"] if subscription else None
    if default is None:
        owner = account.get("customer", customer)
        default = None if owner.get("deleted") else owner["invoice_settings"]["default_payment_method"]
    return None if default is None else account.find("payment_method", default)


_UNUSED_CARD_DETAILS = (
    "amount_authorized",
    "authorization_code",
    "installments",
    "mandate",
    "network_transaction_id",
    "regulated_status",
    "three_d_secure",
    "transaction_link_id",
    "wallet",
)
"""Members of a charge's card details that are null for the payments of the double."""


def charge_details(method: Json, amount: int) -> Json:
    """Return the `payment_method_details` of a charge of an amount."""
    kind = method["type"]
    behavior = behavior_of(method)
    details = {"fingerprint": method[kind]["fingerprint"], "last4": behavior.last4}
    if kind == "card":
        card = method["card"]
        details |= {name: card[name] for name in ("brand", "country", "exp_month", "exp_year", "funding")}
        details |= {
            **dict.fromkeys(_UNUSED_CARD_DETAILS),
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "extended_authorization": {"status": "disabled"},
            "incremental_authorization": {"status": "unavailable"},
            "multicapture": {"status": "unavailable"},
            "network": behavior.brand,
            "network_token": {"used": False},
            "overcapture": {"maximum_amount_capturable": amount, "status": "unavailable"},
        }
    return {"type": kind, kind: details}
