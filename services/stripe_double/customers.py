"""Customers and their balance transactions."""

import re

from services.stripe_double import events, payment_methods
from services.stripe_double.account import Account, Json, random_string
from services.stripe_double.errors import resource_missing
from services.stripe_double.params import Params
from services.stripe_double.rendering import filter_equal, list_page
from services.stripe_double.subscription_status import ENDED, end

_STRINGS = ("description", "email", "name", "phone")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


def create_customer(account: Account, params: Params) -> Json:
    """POST /v1/customers; email addresses need not be unique."""
    customer = account.new(
        "customer",
        address=_read_address(params),
        balance=params.integer("balance", 0),
        currency=None,
        customer_account=None,
        default_source=None,
        delinquent=False,
        discount=None,
        invoice_prefix=random_string(8).upper(),
        invoice_settings={
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        metadata=params.metadata(),
        next_invoice_sequence=1,
        preferred_locales=params.strings("preferred_locales"),
        shipping=_read_shipping(params),
        tax_exempt=params.choice("tax_exempt", ("exempt", "none", "reverse"), "none"),
        test_clock=None,
        **{name: params.string(name) for name in _STRINGS},
    )
    _check_email(params)
    payment_method = params.string("payment_method")
    default = _read_default_payment_method(params)
    params.reject_unknown()
    account.put(customer)
    if payment_method is not None:
        attached = payment_methods.attach(account, payment_method, customer["id"], param="payment_method")
        default = attached["id"] if default == payment_method else default
    if default is not None:
        customer = _with_default_payment_method(account, customer, default)
    events.emit(account, "customer.created", customer)
    return customer


def _read_address(params: Params) -> Json | None:
    """Return an address with all of its members, as Stripe does; None without one."""
    sent = params.nested("address")
    if sent is None:
        return None
    address: Json = {name: sent.string(name) for name in payment_methods.ADDRESS}
    sent.reject_unknown()
    return address


def _read_shipping(params: Params) -> Json | None:
    sent = params.nested("shipping")
    if sent is None:
        return None
    shipping = {"address": _read_address(sent), "name": sent.string("name"), "phone": sent.string("phone")}
    sent.reject_unknown()
    return shipping


def _check_email(params: Params) -> None:
    email = params.string("email")
    # Accounts hold addresses with white space around them, so it does not matter here.
    if email is not None and not _EMAIL.fullmatch(email.strip()):
        raise params.invalid("email", f"Invalid email address: {email}", "email_invalid")


def _read_default_payment_method(params: Params) -> str | None:
    settings = params.nested("invoice_settings")
    if settings is None:
        return None
    default = settings.string("default_payment_method")
    settings.reject_unknown()
    return default


def _with_default_payment_method(account: Account, customer: Json, identifier: str) -> Json:
    param = "invoice_settings[default_payment_method]"
    method = account.get("payment_method", identifier, param=param)
    if method["customer"] != customer["id"]:
        raise resource_missing("payment_method", identifier, param=param)
    settings = {**customer["invoice_settings"], "default_payment_method": identifier}
    return account.update(customer, invoice_settings=settings)


def get_existing(account: Account, identifier: str) -> Json:
    """Return a customer that a path names.

    Raises:
        StripeApiError: 404 `resource_missing` if it does not exist or is deleted.
    """
    customer = account.get("customer", identifier)
    if customer.get("deleted"):
        raise resource_missing("customer", identifier)
    return customer


def update_customer(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/customers/{id}."""
    before = get_existing(account, identifier)
    changes = {
        **params.sent_strings(_STRINGS),
        "balance": params.integer("balance", before["balance"]),
        "metadata": params.metadata(before["metadata"]),
        "tax_exempt": params.string("tax_exempt", before["tax_exempt"]),
    }
    if "address" in params:
        changes["address"] = _read_address(params)
    if "shipping" in params:
        changes["shipping"] = _read_shipping(params)
    _check_email(params)
    default = _read_default_payment_method(params)
    params.reject_unknown()
    after = account.update(before, **changes)
    if default is not None:
        after = _with_default_payment_method(account, after, default)
    return events.emit_if_changed(account, "customer.updated", before, after)


def set_default_payment_method(account: Account, identifier: str, payment_method: str) -> Json:
    """Make a payment method the customer's default for invoices; return the customer."""
    before = get_existing(account, identifier)
    after = _with_default_payment_method(account, before, payment_method)
    return events.emit_if_changed(account, "customer.updated", before, after)


def decline_next_payment(account: Account, identifier: str, *, declines: bool) -> Json:
    """Let the bank decline the next payment that Stripe collects by itself, or not; return the customer."""
    return account.update(get_existing(account, identifier), _declines_next=declines)


def take_decline(account: Account, identifier: str) -> bool:
    """Return whether the bank declines this payment, and forget it: the one after is paid."""
    customer = account.get("customer", identifier)
    declines = bool(customer.get("_declines_next"))
    if declines:
        account.update(customer, _declines_next=False)
    return declines


def delete_customer(account: Account, params: Params, identifier: str) -> Json:
    """DELETE /v1/customers/{id}: cancel all subscriptions now; the customer remains readable as `deleted: true`."""
    customer = get_existing(account, identifier)
    params.reject_unknown()
    for subscription in account.owned("subscription", identifier):
        if subscription["status"] not in ENDED:
            end(account, subscription, reason="cancellation_requested")
    for payment_method in account.owned("payment_method", identifier):
        payment_methods.detach(account, payment_method)
    events.emit(account, "customer.deleted", customer)
    return account.put({"id": identifier, "object": "customer", "deleted": True})


def list_customers(account: Account, params: Params) -> Json:
    """GET /v1/customers; `email` is compared case-sensitively."""
    existing = [customer for customer in account.all("customer") if not customer.get("deleted")]
    return list_page(account, params, "/v1/customers", filter_equal(params, existing, "email"))


def create_balance_transaction(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/customers/{id}/balance_transactions: a positive amount is a debt, a negative one a credit."""
    customer = get_existing(account, identifier)
    amount = params.required_integer("amount")
    currency = params.required("currency")
    balance = customer["balance"] + amount
    entry = account.new(
        "customer_balance_transaction",
        amount=amount,
        checkout_session=None,
        credit_note=None,
        currency=currency,
        customer=identifier,
        customer_account=None,
        description=params.string("description"),
        ending_balance=balance,
        invoice=None,
        metadata=params.metadata(),
        type="adjustment",
    )
    params.reject_unknown()
    after = account.update(customer, balance=balance, currency=currency)
    events.emit_if_changed(account, "customer.updated", customer, after)
    return account.put(entry)


def list_balance_transactions(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/customers/{id}/balance_transactions.

    Stripe also lists the amounts that invoices apply; the double lists only those made through the API.
    """
    get_existing(account, identifier)
    url = f"/v1/customers/{identifier}/balance_transactions"
    return list_page(account, params, url, account.owned("customer_balance_transaction", identifier))
