"""What a person may do in the customer portal, with the events of Stripe's own portal.

docs.stripe.com/customer-management/configure-portal
"""

from services.stripe_double import customers, events, payment_methods, subscription_updates
from services.stripe_double.account import Account, Json
from services.stripe_double.params import Params

_CHANGEABLE = ("active", "past_due", "trialing")


def change_card(account: Account, customer: str, payment_method: str) -> Json:
    """Save a payment method as the default for all invoices of a customer; return the customer.

    Raises:
        StripeApiError: 402 for a card that is declined when it is saved.
    """
    method = payment_methods.attach(account, payment_method, customer)
    for subscription in account.owned("subscription", customer):
        without = account.update(subscription, default_payment_method=None)
        events.emit_if_changed(account, "customer.subscription.updated", subscription, without)
    return customers.set_default_payment_method(account, customer, method["id"])


def cancel(
    account: Account, subscription: str, feature: Json, *, feedback: str | None = None, comment: str = ""
) -> Json:
    """Cancel a subscription as the feature `subscription_cancel` says, now or at the end of the period.

    Args:
        account: The account.
        subscription: ID of the subscription.
        feature: `subscription_cancel` of the configuration.
        feedback: The reason that the person chose.
        comment: What the person wrote.
    """
    details = {name: value for name, value in (("feedback", feedback), ("comment", comment)) if value}
    params: Json = {"cancellation_details": details} if details else {}
    if feature["mode"] == "immediately":
        proration = feature["proration_behavior"]
        params |= {
            "prorate": str(proration != "none").lower(),
            "invoice_now": str(proration == "always_invoice").lower(),
        }
        return subscription_updates.cancel_subscription(account, Params(params), subscription)
    params["cancel_at_period_end"] = "true"
    return subscription_updates.update_subscription(account, Params(params), subscription)


def renew(account: Account, subscription: str) -> Json:
    """Withdraw a scheduled cancellation."""
    return subscription_updates.update_subscription(account, Params({"cancel_at_period_end": "false"}), subscription)


def may_update(account: Account, features: Json, subscription: Json) -> bool:
    """Return whether the portal offers another plan for a subscription.

    It does not for subscriptions with several products, with a schedule or about to be canceled
    (docs.stripe.com/customer-management#limitations).
    """
    feature = features["subscription_update"]
    return bool(
        feature["enabled"]
        and feature["default_allowed_updates"]
        and len(subscription["items"]) == 1
        and subscription["schedule"] is None
        and subscription["cancel_at"] is None
        and subscription["pending_update"] is None
        and subscription["status"] in _CHANGEABLE
        and offered(account, features, subscription)
    )


def offered(account: Account, features: Json, subscription: Json) -> list[Json]:
    """Return the prices that the portal offers, and the present one: active, recurring, of the same currency.

    Without products in the configuration all prices of the account are offered, cheapest first.
    """
    feature = features["subscription_update"]
    present = subscription["items"][0]["price"]
    listed = {price for entry in feature["products"] for price in entry["prices"]} if feature["products"] else None
    if "price" not in feature["default_allowed_updates"]:
        listed = set()
    found = [
        price
        for price in account.all("price")
        if price["id"] == present
        or (
            price["active"]
            and price["recurring"] is not None
            and price["currency"] == subscription["currency"]
            and account.get("product", price["product"])["active"]
            and (listed is None or price["id"] in listed)
        )
    ]
    return sorted(found, key=lambda price: (price["recurring"]["interval"] == "year", price["unit_amount"] or 0))


def proration_of(features: Json) -> str:
    """Return the `proration_behavior` of plan changes."""
    return str(features["subscription_update"]["proration_behavior"])


def ends_trial(features: Json, subscription: Json) -> bool:
    """Return whether a plan change ends the trial (`trial_update_behavior`)."""
    behavior = features["subscription_update"]["trial_update_behavior"]
    return bool(subscription["status"] == "trialing" and behavior == "end_trial")


def change_plan(account: Account, features: Json, subscription: Json, price: str, quantity: int | None) -> Json:
    """Change the only item of a subscription.

    Raises:
        StripeApiError: 402 if the payment of the change fails, which undoes the change.
    """
    item = {"id": subscription["items"][0]["id"], "price": price}
    params: Json = {
        "items": [item if quantity is None else {**item, "quantity": str(quantity)}],
        "proration_behavior": proration_of(features),
        "payment_behavior": "error_if_incomplete",
    }
    if ends_trial(features, subscription):
        params["trial_end"] = "now"
    return subscription_updates.update_subscription(account, Params(params), subscription["id"])
