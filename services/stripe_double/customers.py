"""Customers, their balance transactions and billing portal sessions."""

import re

from services.stripe_double import events, payment_methods
from services.stripe_double.account import Account, Json, random_string
from services.stripe_double.errors import resource_missing
from services.stripe_double.params import Params
from services.stripe_double.prices import read_quantity
from services.stripe_double.rendering import filter_equal, list_page
from services.stripe_double.subscription_status import ENDED, end

FLOWS = ("payment_method_update", "subscription_cancel", "subscription_update", "subscription_update_confirm")
_STRINGS = ("description", "email", "name", "phone")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


def create_customer(account: Account, params: Params) -> Json:
    """POST /v1/customers; email addresses need not be unique."""
    customer = account.new(
        "customer",
        address=params.raw("address") or None,
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
        shipping=params.raw("shipping") or None,
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
    for name in ("address", "shipping"):
        if name in params:
            changes[name] = params.raw(name) or None
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


def _read_flow(account: Account, params: Params, customer: Json) -> Json | None:
    """Return the `flow` of a portal session; the account's portal allows each of the flows.

    Raises:
        StripeApiError: 400 for a subscription or item that is not the customer's, or an update that the portal can't
            make.
    """
    flow = params.nested("flow_data")
    if flow is None:
        return None
    kind = flow.choice("type", FLOWS)
    if kind is None:
        raise flow.missing("type")
    flows = dict.fromkeys(("customer_update", *FLOWS[1:]))
    read: Json = {"type": kind, "after_completion": _read_completion(flow), **flows}
    if kind != "payment_method_update":
        details = flow.nested(kind)
        if details is None:
            raise flow.missing(kind)
        read[kind] = _read_flow_details(account, details, customer, kind)
    flow.reject_unknown()
    return read


def _read_completion(flow: Params) -> Json:
    completion = flow.nested("after_completion")
    read: Json = {"hosted_confirmation": None, "redirect": None, "type": "portal_homepage"}
    if completion is None:
        return read
    read["type"] = completion.choice("type", ("hosted_confirmation", "portal_homepage", "redirect"))
    redirect = completion.nested("redirect")
    if redirect is not None:
        read["redirect"] = {"return_url": redirect.required("return_url")}
        redirect.reject_unknown()
    completion.reject_unknown()
    return read


def _read_flow_details(account: Account, details: Params, customer: Json, kind: str) -> Json:
    subscription = account.get(
        "subscription", details.required("subscription"), param=details.encoded_name("subscription")
    )
    if subscription["customer"] != customer["id"] or subscription["status"] in {*ENDED, "incomplete"}:
        raise details.invalid("subscription", "This subscription cannot be changed in the portal of this customer.")
    read: Json = {"subscription": subscription["id"]}
    if kind == "subscription_cancel":
        read["retention"] = None
    elif len(subscription["items"]) > 1:
        raise details.invalid(
            "subscription",
            "The subscription update flow cannot be used when a subscription contains multiple products.",
        )
    if kind == "subscription_update_confirm":
        read |= {"discounts": None, "items": _read_flow_items(account, details, subscription)}
    details.reject_unknown()
    return read


def _read_flow_items(account: Account, details: Params, subscription: Json) -> list[Json]:
    (item,) = subscription["items"]
    entries = details.nested_list("items")
    if len(entries) != 1:
        raise details.missing("items")
    entry = entries[0]
    if entry.required("id") != item["id"]:
        raise resource_missing("subscription_item", entry.required("id"), param=entry.encoded_name("id"))
    price = account.get("price", entry.string("price") or item["price"], param=entry.encoded_name("price"))
    quantity = read_quantity(entry, price, item["quantity"], minimum=1)
    entry.reject_unknown()
    if (price["id"], quantity) == (item["price"], item["quantity"]):
        raise details.invalid("items", "The subscription update has no changes to confirm.")
    return [{"id": item["id"], "price": price["id"], **({} if quantity is None else {"quantity": quantity})}]


def create_portal_session(account: Account, params: Params) -> Json:
    """POST /v1/billing_portal/sessions; the session is not stored, because the API can't read it again."""
    customer = account.get("customer", params.required("customer"), param="customer")
    session = account.new(
        "billing_portal.session",
        configuration=params.string("configuration") or "bpc_1StripeDouble",
        customer=customer["id"],
        customer_account=None,
        flow=_read_flow(account, params, customer),
        locale=params.string("locale"),
        on_behalf_of=None,
        return_url=params.string("return_url"),
        url=f"https://billing.stripe.com/p/session/test_{random_string(80)}",
    )
    params.reject_unknown()
    return session
