"""Free trials of subscriptions: parameters, the first invoice, the reminder and the end."""

from services.stripe_double import billing, events, subscription_status
from services.stripe_double.account import Account, Json
from services.stripe_double.clock import DAY
from services.stripe_double.params import Params
from services.stripe_double.payment_methods import default_of
from services.stripe_double.subscription_items import with_new_cycle

MAX_LENGTH = 730 * DAY
NOTICE = 3 * DAY
"""Time between `customer.subscription.trial_will_end` and the end (docs.stripe.com/billing/subscriptions/trials)."""
END_BEHAVIORS = ("cancel", "create_invoice", "pause")


def trial_end_from(account: Account, params: Params, prices: list[Json]) -> int | None:
    """Return the trial end of a new subscription from `trial_end`, `trial_period_days` or `trial_from_plan`.

    Returns:
        Unix seconds; None without a trial.
    """
    days = params.integer("trial_period_days", minimum=0)
    trial_end = read_trial_end(account, params)
    if days is not None and trial_end is not None:
        raise params.invalid("trial_end", "You may only specify one of these: trial_end, trial_period_days.")
    if params.boolean("trial_from_plan") and days is None and trial_end is None:
        days = max((price["recurring"]["trial_period_days"] or 0 for price in prices), default=0)
    if days:
        trial_end = account.now + days * DAY
    if trial_end is not None and trial_end - account.now > MAX_LENGTH:
        raise params.invalid("trial_end", "The trial may last up to 730 days.")
    return trial_end if trial_end is not None and trial_end > account.now else None


def read_trial_end(account: Account, params: Params) -> int | None:
    """Return `trial_end`, which is a future time or `now`, in Unix seconds."""
    if params.string("trial_end") == "now":
        return account.now
    trial_end = params.integer("trial_end")
    if trial_end is not None and trial_end <= account.now:
        raise params.invalid("trial_end", "Invalid timestamp: must be an integer Unix timestamp in the future.")
    return trial_end


def read_trial_settings(params: Params) -> Json:
    """Return `trial_settings`; by default a trial without a payment method ends with an invoice."""
    settings = params.nested("trial_settings")
    end_behavior = settings.nested("end_behavior") if settings else None
    behavior = end_behavior.choice("missing_payment_method", END_BEHAVIORS) if end_behavior else None
    if end_behavior is not None:
        end_behavior.reject_unknown()
    if settings is not None:
        settings.reject_unknown()
    return {"end_behavior": {"billing_cycle_anchor": None, "missing_payment_method": behavior or "create_invoice"}}


def trial_members(account: Account, trial_end: int | None) -> Json:
    """Return the members of a new subscription that depend on its trial."""
    if trial_end is None:
        return {"trial_start": None, "trial_end": None}
    return {"trial_start": account.now, "trial_end": trial_end, "status": "trialing"}


def with_trial_period(subscription: Json, start: int, trial_end: int) -> Json:
    """Return the subscription with the trial as the period of every item, and its end as the anchor."""
    # Usage during a trial is free (docs.stripe.com/billing/subscriptions/trials).
    usage = {"_usage_from": trial_end, "_arrears": (trial_end, trial_end)}
    period = {"current_period_start": start, "current_period_end": trial_end, **usage}
    items = [{**item, **period} for item in subscription["items"]]
    return {**subscription, "billing_cycle_anchor": trial_end, "items": items}


def finalize_first_invoice(account: Account, subscription: Json, *, charge: bool) -> Json:
    """Finalize the first invoice; return the subscription. The invoice of a trial is 0, so it is paid at once.

    Args:
        account: The account.
        subscription: The subscription, with the draft as its latest invoice.
        charge: Charge the amount due; otherwise the customer confirms the payment.
    """
    invoice = account.get("invoice", subscription["latest_invoice"])
    if charge:
        billing.finalize_and_collect(account, invoice)
    else:
        billing.finalize(account, invoice)
    return account.get("subscription", subscription["id"])


def notify_trial_will_end(account: Account, subscription: Json) -> Json:
    """Emit `customer.subscription.trial_will_end` within three days of the end, once per end; return the subscription.

    The same object is returned if there was nothing to do.
    """
    trial_end = subscription["trial_end"]
    if (
        subscription["status"] != "trialing"
        or subscription["_notified_trial_end"] == trial_end
        or trial_end - NOTICE > account.now
    ):
        return subscription
    subscription = account.update(subscription, _notified_trial_end=trial_end)
    events.emit(account, "customer.subscription.trial_will_end", subscription)
    return subscription


def end_trial(account: Account, subscription: Json) -> None:
    """End a trial when it is due: start the first paid period; without a payment method apply `trial_settings`."""
    method = default_of(account, subscription, subscription["customer"])
    behavior = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    if subscription["collection_method"] == "charge_automatically" and method is None:
        if behavior == "cancel":
            subscription_status.end(account, subscription, reason=None)
            return
        if behavior == "pause":
            _pause(account, subscription)
            return
    started = with_new_cycle(account, {**subscription, "status": "active"}, subscription["trial_end"])
    active = billing.bill(account, account.put(started), started["items"], "subscription_cycle", charge_now=False)
    events.emit(account, "customer.subscription.updated", active, before=subscription)


def _pause(account: Account, subscription: Json) -> None:
    paused = account.update(
        subscription, status="paused", status_details=paused_details(account, "trial_end_without_payment_method")
    )
    events.emit(account, "customer.subscription.paused", paused)
    events.emit(account, "customer.subscription.updated", paused, before=subscription)


def paused_details(account: Account, cause: str) -> Json:
    """Return the `status_details` of a subscription that is paused now."""
    return {"paused": {"subscription": {"type": cause}, "transitioned_at": account.now, "type": "subscription"}}


def end_trial_now(account: Account, subscription: Json) -> Json:
    """End a trial by request, and charge the first period at once; return the subscription."""
    started = with_new_cycle(account, {**subscription, "status": "active", "trial_end": account.now}, account.now)
    return billing.bill(account, account.put(started), started["items"], "subscription_update", charge_now=True)
