"""Sessions of the customer portal, and the `flow_data` that leads to one task (docs.stripe.com/api/customer_portal)."""

import time
from collections.abc import Callable

from services.stripe_double import portal_configurations
from services.stripe_double.account import Account, Json, random_string
from services.stripe_double.errors import StripeApiError, resource_missing
from services.stripe_double.params import Params
from services.stripe_double.prices import read_quantity
from services.stripe_double.subscription_status import ENDED

KIND = "billing_portal.session"
FLOWS = ("payment_method_update", "subscription_cancel", "subscription_update", "subscription_update_confirm")
UNOPENED_SECONDS = 5 * 60
"""How long the URL of a session works until it is opened, in real time: clients wait in real time too."""
OPENED_SECONDS = 60 * 60
"""How long it works after the last request."""
_FEATURES = {
    "payment_method_update": "payment_method_update",
    "subscription_cancel": "subscription_cancel",
    "subscription_update": "subscription_update",
    "subscription_update_confirm": "subscription_update",
}


def create_portal_session(account: Account, params: Params) -> Json:
    """POST /v1/billing_portal/sessions. The API can't read it again; its URL opens the portal's page."""
    customer = account.get("customer", params.required("customer"), param="customer")
    configuration = params.string("configuration") or portal_configurations.default_id(account)
    if configuration != portal_configurations.OWN:
        account.get(portal_configurations.KIND, configuration, param="configuration")
    session = account.new(
        KIND,
        configuration=configuration,
        customer=customer["id"],
        customer_account=None,
        flow=_read_flow(account, params, customer, portal_configurations.features_of(account, configuration)),
        locale=params.string("locale"),
        on_behalf_of=None,
        return_url=params.string("return_url"),
        _token=f"test_{random_string(80)}",
        _expires=time.time() + UNOPENED_SECONDS,
    )
    params.reject_unknown()
    for earlier in account.owned(KIND, customer["id"]):
        if earlier["_expires"] < time.time():
            account.remove(KIND, earlier["id"])
    return account.put(session)


def open_session(account: Account, token: str, now: float) -> Json | None:
    """Return the session of a URL and keep it open for an hour; None if it does not exist or has expired.

    Args:
        account: The account.
        token: The part of the URL that names the session.
        now: Real Unix time in seconds.
    """
    session = next((each for each in account.all(KIND) if each["_token"] == token), None)
    if session is None or session["_expires"] < now:
        return None
    with account.change():
        return account.update(session, _expires=now + OPENED_SECONDS)


def _read_flow(account: Account, params: Params, customer: Json, features: Json) -> Json | None:
    """Return the `flow` of a portal session.

    Raises:
        StripeApiError: 400 for a feature that the configuration disables, a subscription or item that is not the
            customer's, or an update that the portal can't make.
    """
    flow = params.nested("flow_data")
    if flow is None:
        return None
    kind = flow.choice("type", FLOWS)
    if kind is None:
        raise flow.missing("type")
    if not features[_FEATURES[kind]]["enabled"]:
        raise StripeApiError(
            f"This flow cannot be used because the {_FEATURES[kind].replace('_', ' ')} feature in the portal"
            " configuration is disabled."
        )
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


ROUTES: dict[str, Callable[..., Json]] = {"POST /v1/billing_portal/sessions": create_portal_session}
