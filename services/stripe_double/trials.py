"""What does a free trial change? Its length, its announcement, and what follows its end."""

from services.stripe_double import collection, events, invoices, standing
from services.stripe_double.account import Account, Json
from services.stripe_double.billing import bill, restarted
from services.stripe_double.clock import DAY
from services.stripe_double.endings import end
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import default_of

LONGEST = 730 * DAY
NOTICE = 3 * DAY
"""`customer.subscription.trial_will_end` comes so long before the end (/billing/subscriptions/trials)."""
END_BEHAVIORS = ("cancel", "create_invoice", "pause")


def asked(account: Account, params: Params, prices: list[Json]) -> int | None:
    """Reads when the trial of a new subscription ends: `trial_end`, `trial_period_days` or the price's own.

    Returns:
        Unix seconds; None without a trial.
    """
    days = params.integer("trial_period_days", least=0)
    trial_end = until(account, params)
    if days is not None and trial_end is not None:
        raise params.refuse("trial_end", "You may only specify one of these: trial_end, trial_period_days.")
    if params.flag("trial_from_plan") and days is None and trial_end is None:
        days = max((price["recurring"]["trial_period_days"] or 0 for price in prices), default=0)
    if days:
        trial_end = account.now + days * DAY
    if trial_end is not None and trial_end - account.now > LONGEST:
        raise params.refuse("trial_end", "The trial may last up to 730 days.")
    return trial_end if trial_end is not None and trial_end > account.now else None


def until(account: Account, params: Params) -> int | None:
    """Reads `trial_end`, a time ahead or `now`."""
    if params.text("trial_end") == "now":
        return account.now
    trial_end = params.integer("trial_end")
    if trial_end is not None and trial_end <= account.now:
        raise params.refuse("trial_end", "Invalid timestamp: must be an integer Unix timestamp in the future.")
    return trial_end


def settings(params: Params) -> Json:
    """Reads `trial_settings`; without a payment method an invoice is made that nobody pays, by default."""
    given = params.child("trial_settings")
    behavior = given.child("end_behavior") if given else None
    missing = behavior.choice("missing_payment_method", END_BEHAVIORS) if behavior else None
    if behavior is not None:
        behavior.finish()
    if given is not None:
        given.finish()
    return {"end_behavior": {"billing_cycle_anchor": None, "missing_payment_method": missing or "create_invoice"}}


def begun(account: Account, trial_end: int | None) -> Json:
    """Returns the members of a subscription that say whether it is in a trial."""
    if trial_end is None:
        return {"trial_start": None, "trial_end": None}
    return {"trial_start": account.now, "trial_end": trial_end, "status": "trialing"}


def lasting(subscription: Json, start: int, trial_end: int) -> Json:
    """Returns the subscription with the trial as every item's period and its end as the anchor."""
    period = {"current_period_start": start, "current_period_end": trial_end}
    items = [{**item, **period} for item in subscription["items"]]
    return {**subscription, "billing_cycle_anchor": trial_end, "items": items}


def first_payment(account: Account, subscription: Json, *, charge: bool) -> Json:
    """Finalizes the first invoice, a trial's of 0 is paid at once; returns the subscription after it.

    Args:
        account: Where.
        subscription: With the draft as its latest invoice.
        charge: Whether to charge what is due; the customer will, otherwise.
    """
    invoice = account.get("invoice", subscription["latest_invoice"])
    if charge:
        collection.settle(account, invoice)
    elif invoices.finalize(account, invoice)["status"] == "paid":
        standing.paid(account, invoice)
    return account.get("subscription", subscription["id"])


def ending_soon(account: Account, subscription: Json) -> Json:
    """Announces a trial that ends within three days, once for each end; returns the subscription."""
    trial_end = subscription["trial_end"]
    if (
        subscription["status"] != "trialing"
        or subscription["_told_trial_end"] == trial_end
        or trial_end - NOTICE > account.now
    ):
        return subscription
    subscription = account.update(subscription, _told_trial_end=trial_end)
    events.emit(account, "customer.subscription.trial_will_end", subscription)
    return subscription


def over(account: Account, subscription: Json) -> None:
    """Ends a trial: the first real period begins, or what `trial_settings` say without a payment method."""
    method = default_of(account, subscription, subscription["customer"])
    fallback = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    if subscription["collection_method"] == "charge_automatically" and method is None:
        if fallback == "cancel":
            end(account, subscription, reason=None)
            return
        if fallback == "pause":
            _pause(account, subscription)
            return
    started = restarted(account, {**subscription, "status": "active"}, subscription["trial_end"])
    active = bill(account, account.put(started), started["items"], "subscription_cycle", at_once=False)
    events.emit(account, "customer.subscription.updated", active, before=subscription)


def _pause(account: Account, subscription: Json) -> None:
    paused = account.update(
        subscription, status="paused", status_details=paused_because(account, "trial_end_without_payment_method")
    )
    events.emit(account, "customer.subscription.paused", paused)
    events.emit(account, "customer.subscription.updated", paused, before=subscription)


def paused_because(account: Account, cause: str) -> Json:
    """Returns the `status_details` of a subscription that pauses now."""
    return {"paused": {"subscription": {"type": cause}, "transitioned_at": account.now, "type": "subscription"}}


def ended_now(account: Account, subscription: Json) -> Json:
    """Ends a trial by the caller's wish: the invoice is charged at once; returns the subscription."""
    started = restarted(account, {**subscription, "status": "active", "trial_end": account.now}, account.now)
    return bill(account, account.put(started), started["items"], "subscription_update", at_once=True)
