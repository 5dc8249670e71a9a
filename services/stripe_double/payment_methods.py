"""How do customers pay, and does it work? Stripe's test payment methods and what they do."""

from dataclasses import dataclass
from hashlib import sha256

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError, missing, not_played
from services.stripe_double.listing import filtered, of_customer, page
from services.stripe_double.params import Params


@dataclass(frozen=True)
class Behaviour:
    """What a test payment method does when it is charged."""

    brand: str
    last4: str
    outcome: str = "succeeds"
    """`succeeds`, `declines`, `authenticates` (asks the customer first), `settles` or `bounces` (a bank
    debit that is processing for days, then succeeds or fails), `disputes` or `inquires`."""
    decline_code: str | None = None
    attachable: bool = True
    """Whether a customer can keep it; cards that decline at once can't."""
    kind: str = "card"


TEST_PAYMENT_METHODS = {
    "pm_card_visa": Behaviour("visa", "4242"),
    "pm_card_visa_debit": Behaviour("visa", "5556"),
    "pm_card_mastercard": Behaviour("mastercard", "4444"),
    "pm_card_amex": Behaviour("amex", "8431"),
    "pm_card_discover": Behaviour("discover", "9424"),
    "pm_card_chargeCustomerFail": Behaviour("visa", "0341", "declines", "generic_decline"),
    "pm_card_chargeDeclined": Behaviour("visa", "0002", "declines", "generic_decline", attachable=False),
    "pm_card_visa_chargeDeclined": Behaviour("visa", "0002", "declines", "generic_decline", attachable=False),
    "pm_card_chargeDeclinedInsufficientFunds": Behaviour(
        "visa", "9995", "declines", "insufficient_funds", attachable=False
    ),
    "pm_card_chargeDeclinedLostCard": Behaviour("visa", "9987", "declines", "lost_card", attachable=False),
    "pm_card_chargeDeclinedExpiredCard": Behaviour("visa", "0069", "declines", "expired_card", attachable=False),
    "pm_card_authenticationRequired": Behaviour("visa", "3184", "authenticates"),
    "pm_card_createDispute": Behaviour("visa", "0259", "disputes"),
    "pm_card_createDisputeInquiry": Behaviour("visa", "1976", "inquires"),
    "pm_usBankAccount_success": Behaviour("STRIPE TEST BANK", "6789", "settles", kind="us_bank_account"),
    "pm_usBankAccount_insufficientFunds": Behaviour(
        "STRIPE TEST BANK", "2227", "bounces", "insufficient_funds", kind="us_bank_account"
    ),
}
"""Source: docs.stripe.com/testing; `pm_card_chargeCustomerFail` is the card that declines after it was kept."""


def behaviour(payment_method: Json) -> Behaviour:
    """Returns what a payment method of the account does when it is charged."""
    return TEST_PAYMENT_METHODS[payment_method["_test"]]


def create(account: Account, params: Params) -> Json:
    """POST /v1/payment_methods: a card by its test token (`card[token]=tok_visa`)."""
    if params.choice("type", ("card",)) is None:
        raise params.refuse("type", "Missing required param: type.", "parameter_missing")
    card = params.child("card")
    token = card.text("token") if card else None
    name = f"pm_card_{token.removeprefix('tok_')}" if token else ""
    metadata = params.metadata()
    if card is not None:
        card.finish()
    params.finish()
    if name not in TEST_PAYMENT_METHODS:
        raise not_played(f"payment methods other than Stripe's test tokens (not {token})", "card[token]")
    return _made(account, name, metadata)


def _made(account: Account, name: str, metadata: dict[str, str] | None = None) -> Json:
    played = TEST_PAYMENT_METHODS[name]
    empty_address = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
    details = _card(played) if played.kind == "card" else _bank_account(played)
    method = account.new(
        "payment_method",
        allow_redisplay="unspecified",
        billing_details={"address": empty_address, "email": None, "name": None, "phone": None, "tax_id": None},
        customer=None,
        customer_account=None,
        metadata=metadata or {},
        type=played.kind,
        _test=name,
    )
    return account.put({**method, played.kind: details})


def _fingerprint(played: Behaviour) -> str:
    # One card has one fingerprint, whoever brings it: what trial abuse is found by.
    return sha256(f"{played.kind}{played.brand}{played.last4}".encode()).hexdigest()[:16]


def _card(played: Behaviour) -> Json:
    return {
        "brand": played.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "pass",
        },
        "country": "US",
        "display_brand": played.brand,
        "exp_month": 12,
        "exp_year": 2040,
        "fingerprint": _fingerprint(played),
        "funding": "credit",
        "generated_from": None,
        "last4": played.last4,
        "networks": {"available": [played.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def _bank_account(played: Behaviour) -> Json:
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": played.brand,
        "fingerprint": _fingerprint(played),
        "last4": played.last4,
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": "110000000",
    }


def found(account: Account, identifier: str, *, param: str | None = None) -> Json:
    """Returns a payment method; a test name such as `pm_card_visa` makes a new one each time."""
    if identifier in TEST_PAYMENT_METHODS:
        return _made(account, identifier)
    return account.get("payment_method", identifier, param=param)


def attached(account: Account, identifier: str, customer: str, *, param: str | None = None) -> Json:
    """Gives a payment method to a customer and returns it.

    Raises:
        StripeApiError: 402 `card_declined` for the test cards that Stripe lets nobody keep; 400 when it
            belongs to another customer.
    """
    before = found(account, identifier, param=param)
    played = behaviour(before)
    if before["customer"] == customer:
        return before
    if before["customer"] is not None:
        raise StripeApiError(
            "The payment method you provided has already been attached to a customer.",
            code="payment_method_unexpected_state",
            param=param,
        )
    if not played.attachable:
        raise declined(played.decline_code)
    after = account.update(before, customer=customer)
    events.emit(account, "payment_method.attached", after)
    return after


def declined(decline_code: str | None, **details: object) -> StripeApiError:
    """The 402 that a declined card answers."""
    code = "expired_card" if decline_code == "expired_card" else "card_declined"
    message = "Your card has expired." if code == "expired_card" else "Your card was declined."
    return StripeApiError(
        message, status=402, type="card_error", code=code, details={"decline_code": decline_code, **details}
    )


def detach(account: Account, method: Json) -> Json:
    """Takes a payment method from its customer, for good; where it was the default there is none now."""
    owner = method["customer"]
    after = account.update(method, customer=None)
    events.emit(account, "payment_method.detached", after, before=method)
    customer = account.find("customer", owner) if owner else None
    if customer and not customer.get("deleted"):
        settings = customer["invoice_settings"]
        if settings["default_payment_method"] == method["id"]:
            cleared = account.update(customer, invoice_settings={**settings, "default_payment_method": None})
            events.changed(account, "customer.updated", customer, cleared)
    for subscription in account.owned("subscription", owner) if owner else []:
        if subscription["default_payment_method"] == method["id"]:
            without = account.update(subscription, default_payment_method=None)
            events.changed(account, "customer.subscription.updated", subscription, without)
    return after


def attach_by_call(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/payment_methods/{id}/attach."""
    customer = params.needed("customer")
    params.finish()
    account.get("customer", customer, param="customer")
    return attached(account, identifier, customer)


def detach_by_call(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/payment_methods/{id}/detach."""
    params.finish()
    method = account.get("payment_method", identifier)
    if method["customer"] is None:
        raise StripeApiError("The payment method you provided is not attached to a customer.")
    return detach(account, method)


def retrieve(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/payment_methods/{id}."""
    params.finish()
    return account.get("payment_method", identifier)


def listed(account: Account, params: Params) -> Json:
    """GET /v1/payment_methods."""
    kept = [method for method in of_customer(account, params, "payment_method") if method["customer"]]
    return page(account, params, "/v1/payment_methods", filtered(params, kept, "type"))


def listed_of_customer(account: Account, params: Params, customer: str) -> Json:
    """GET /v1/customers/{id}/payment_methods."""
    known = account.get("customer", customer)
    if known.get("deleted"):
        raise missing("customer", customer)
    methods = filtered(params, account.owned("payment_method", customer), "type")
    return page(account, params, f"/v1/customers/{customer}/payment_methods", methods)


def default_of(account: Account, subscription: Json | None, customer: str) -> Json | None:
    """Returns what an invoice is charged to: the subscription's own method, else the customer's."""
    chosen = subscription["default_payment_method"] if subscription else None
    if chosen is None:
        known = account.get("customer", customer)
        chosen = None if known.get("deleted") else known["invoice_settings"]["default_payment_method"]
    return None if chosen is None else account.find("payment_method", chosen)
