"""Who pays? Customers, also after they were deleted."""

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.endings import end
from services.stripe_double.errors import missing
from services.stripe_double.ids import token
from services.stripe_double.listing import filtered, page
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import attached, detach

_TEXTS = ("description", "email", "name", "phone")
_OVER = ("canceled", "incomplete_expired")


def create(account: Account, params: Params) -> Json:
    """POST /v1/customers; two customers may well have the same address."""
    customer = account.new(
        "customer",
        address=params.raw("address") or None,
        balance=params.integer("balance", 0),
        business_name=None,
        currency=None,
        customer_account=None,
        default_source=None,
        delinquent=False,
        discount=None,
        individual_name=None,
        invoice_prefix=token(8).upper(),
        invoice_settings={
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        metadata=params.metadata(),
        next_invoice_sequence=1,
        preferred_locales=params.texts("preferred_locales"),
        shipping=params.raw("shipping") or None,
        tax_exempt=params.choice("tax_exempt", ("exempt", "none", "reverse"), "none"),
        test_clock=None,
        **{name: params.text(name) for name in _TEXTS},
    )
    payment_method = params.text("payment_method")
    default = _default_payment_method(params)
    params.finish()
    account.put(customer)
    if payment_method is not None:
        card = attached(account, payment_method, customer["id"], param="payment_method")
        default = card["id"] if default == payment_method else default
    if default is not None:
        customer = _preferring(account, customer, default)
    events.emit(account, "customer.created", customer)
    return customer


def _default_payment_method(params: Params) -> str | None:
    settings = params.child("invoice_settings")
    if settings is None:
        return None
    default = settings.text("default_payment_method")
    settings.finish()
    return default


def _preferring(account: Account, customer: Json, payment_method: str) -> Json:
    param = "invoice_settings[default_payment_method]"
    known = account.get("payment_method", payment_method, param=param)
    if known["customer"] != customer["id"]:
        raise missing("payment_method", payment_method, param=param)
    settings = {**customer["invoice_settings"], "default_payment_method": payment_method}
    return account.update(customer, invoice_settings=settings)


def retrieve(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/customers/{id}; a deleted one is answered with `deleted: true`, not 404."""
    params.finish()
    return account.get("customer", identifier)


def living(account: Account, identifier: str) -> Json:
    """Returns a customer that a path names and that is not deleted."""
    customer = account.get("customer", identifier)
    if customer.get("deleted"):
        raise missing("customer", identifier)
    return customer


def update(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/customers/{id}."""
    before = living(account, identifier)
    changes = {
        **params.given(_TEXTS),
        "balance": params.integer("balance", before["balance"]),
        "metadata": params.metadata(before["metadata"]),
        "tax_exempt": params.text("tax_exempt", before["tax_exempt"]),
    }
    for name in ("address", "shipping"):
        if name in params:
            changes[name] = params.raw(name) or None
    default = _default_payment_method(params)
    params.finish()
    after = account.update(before, **changes)
    if default is not None:
        after = _preferring(account, after, default)
    return events.changed(account, "customer.updated", before, after)


def prefer(account: Account, identifier: str, payment_method: str) -> Json:
    """Makes a payment method the customer's default and announces it; returns the customer."""
    before = living(account, identifier)
    return events.changed(account, "customer.updated", before, _preferring(account, before, payment_method))


def delete(account: Account, params: Params, identifier: str) -> Json:
    """DELETE /v1/customers/{id}: subscriptions end at once, the customer leaves its tombstone."""
    customer = living(account, identifier)
    params.finish()
    for subscription in account.owned("subscription", identifier):
        if subscription["status"] not in _OVER:
            end(account, subscription, reason="cancellation_requested")
    for payment_method in account.owned("payment_method", identifier):
        detach(account, payment_method)
    events.emit(account, "customer.deleted", customer)
    return account.put({"id": identifier, "object": "customer", "deleted": True})


def listed(account: Account, params: Params) -> Json:
    """GET /v1/customers: `email` is compared exactly, case included."""
    alive = [customer for customer in account.all("customer") if not customer.get("deleted")]
    return page(account, params, "/v1/customers", filtered(params, alive, "email"))
