"""The portal's pages for a change of plan: the plans on offer, and the confirmation with what the change costs."""

from services.stripe_double import portal_actions
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError
from services.stripe_double.idempotency import Response
from services.stripe_double.pages.pages import money, not_found, price_text, product_name, units
from services.stripe_double.pages.portal_visit import Visit, preview_of, shown
from services.stripe_double.prices import amount_of, is_metered

MAX_QUANTITY = 999_999


def update(visit: Visit, subscription: Json) -> Response:
    """List the plans that the configuration offers."""
    account, features = visit.account, visit.features
    if not portal_actions.may_update(account, features, subscription):
        return not_found()
    (item,) = subscription["items"]
    return visit.show(
        "portal_plans.html",
        subscription=shown(visit, subscription),
        quantity=item["quantity"] or 1,
        quantities="quantity" in features["subscription_update"]["default_allowed_updates"],
        plans=[
            {
                "price": each["id"],
                "name": product_name(account, each),
                "description": account.get("product", each["product"])["description"],
                "text": price_text(each),
                "current": each["id"] == item["price"],
                "metered": is_metered(each),
            }
            for each in portal_actions.offered(account, features, subscription)
        ],
    )


def confirm(visit: Visit, subscription: Json) -> Response:
    """Show what a change costs, and make it."""
    account, features = visit.account, visit.features
    if not portal_actions.may_update(account, features, subscription):
        return not_found()
    (item,) = subscription["items"]
    chosen = _chosen(visit, item)
    price = account.find("price", chosen["price"])
    if price is None or price["id"] not in {
        each["id"] for each in portal_actions.offered(account, features, subscription)
    }:
        return not_found()
    quantity = None if is_metered(price) else chosen["quantity"]
    if (price["id"], quantity) == (item["price"], item["quantity"]):
        raise StripeApiError("This is already your plan.")
    values: Json = {
        "subscription": shown(visit, subscription),
        "name": units(product_name(account, price), quantity),
        "price": price,
        "quantity": quantity,
        "text": price_text(price),
        "ends_trial": portal_actions.ends_trial(features, subscription),
        **_costs(account, subscription, price, quantity, features),
    }
    if not visit.request.posts:
        return visit.show("portal_confirm.html", **values)
    try:
        with account.change():
            portal_actions.change_plan(account, features, subscription, price["id"], quantity)
    except StripeApiError as error:
        return visit.show("portal_confirm.html", error=error.message, **values)
    return visit.done("updated")


def _chosen(visit: Visit, item: Json) -> Json:
    """Return price and quantity of the flow, or of the form of the plans."""
    if visit.flow is not None and visit.flow["type"] == "subscription_update_confirm":
        (flow_item,) = visit.flow["subscription_update_confirm"]["items"]
        return {"price": flow_item["price"], "quantity": flow_item.get("quantity")}
    sent = visit.request.form if visit.request.posts else visit.request.query
    text = sent.get("quantity", "")
    allowed = "quantity" in visit.features["subscription_update"]["default_allowed_updates"]
    valid = allowed and text.isascii() and text.isdigit() and 0 < int(text[:7]) <= MAX_QUANTITY
    return {"price": sent.get("price", item["price"]), "quantity": int(text) if valid else item["quantity"] or 1}


def _costs(account: Account, subscription: Json, price: Json, quantity: int | None, features: Json) -> Json:
    """Return the lines and the sum of what a change charges now (`due_now`) or with the next invoice."""
    if portal_actions.ends_trial(features, subscription):
        amount = money(0 if quantity is None else amount_of(price, quantity), price["currency"])
        return {"due_now": True, "due": amount, "lines": [(product_name(account, price), amount)]}
    changed: Json = {"id": subscription["items"][0]["id"], "price": price["id"]}
    if quantity is not None:
        changed["quantity"] = str(quantity)
    details = {"items": [changed], "proration_behavior": portal_actions.proration_of(features)}
    preview = preview_of(account, subscription, details)
    return {
        "due_now": preview["billing_reason"] == "subscription_update",
        "due": money(preview["amount_due"], preview["currency"]),
        "lines": [(line["description"], money(line["amount"], preview["currency"])) for line in preview["lines"]],
    }
