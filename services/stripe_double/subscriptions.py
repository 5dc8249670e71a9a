"""How is a subscription read and changed? Retrieve, list, and the many members of an update."""

from services.stripe_double import discounts, events, items, signup, trials
from services.stripe_double.account import Account, Json
from services.stripe_double.billing import bill, period_end
from services.stripe_double.endings import OVER
from services.stripe_double.errors import StripeApiError, not_played
from services.stripe_double.lines import prorate, waiting
from services.stripe_double.listing import of_customer, page
from services.stripe_double.params import Params

STATUSES = ("active", "canceled", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid")
FEEDBACK = (
    "customer_service",
    "low_quality",
    "missing_features",
    "other",
    "switched_service",
    "too_complex",
    "too_expensive",
    "unused",
)
PRORATIONS = ("always_invoice", "create_prorations", "none")


def retrieve(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/subscriptions/{id}, those that are over too."""
    params.finish()
    return account.get("subscription", identifier)


def listed(account: Account, params: Params) -> Json:
    """GET /v1/subscriptions: without `status` those canceled are left out; `all` and `ended` are words for several."""
    status = params.choice("status", (*STATUSES, "all", "ended"))
    price = params.text("price") or params.text("plan")
    found = [
        subscription
        for subscription in of_customer(account, params, "subscription")
        if _asked_for(subscription["status"], status)
        and (price is None or any(item["price"] == price for item in subscription["items"]))
    ]
    return page(account, params, "/v1/subscriptions", found)


def _asked_for(actual: str, wanted: str | None) -> bool:
    if wanted is None:
        return actual != "canceled"
    if wanted == "ended":
        return actual in OVER
    return wanted in {"all", actual}


def update(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/subscriptions/{id}.

    Raises:
        StripeApiError: 400 for a subscription that is over, except for `metadata` and
            `cancellation_details`; for parameters that are unknown, not played or don't fit.
    """
    before = account.get("subscription", identifier)
    if before["status"] in OVER:
        return _annotated(account, params, before)
    changes: Json = {
        "_quiet": True,
        "metadata": params.metadata(before["metadata"]),
        **params.given(("description",)),
        **_settings(account, params, before),
    }
    trial_end = trials.until(account, params) if "trial_end" in params else None
    proration = str(params.choice("proration_behavior", PRORATIONS, "create_prorations"))
    wanted = params.children("items")
    new_discounts = params.children("discounts") if "discounts" in params else None
    cancellation = _cancellation(account, params, before)
    params.choice("payment_behavior", (*signup.BEHAVIORS, "pending_if_incomplete"))
    params.flag("off_session")
    _refuse_the_rest(params)

    subscription = account.update(before, **changes)
    if new_discounts is not None:
        subscription = _discounted(account, subscription, new_discounts)
    if wanted:
        changed = items.changed(account, subscription, wanted, prorated=proration != "none")
        subscription = account.put(changed)
        subscription = _billed(account, before, subscription, at_once=proration == "always_invoice")
    if trial_end is not None:
        subscription = _in_trial(account, subscription, trial_end, prorated=proration != "none")
    subscription = account.update(subscription, **_ending(account, subscription, cancellation), _quiet=False)
    events.changed(account, "customer.subscription.updated", before, subscription)
    return trials.ending_soon(account, subscription)


def _annotated(account: Account, params: Params, before: Json) -> Json:
    metadata = params.metadata(before["metadata"])
    details = cancellation_details(params, before)
    try:
        params.finish()
    except StripeApiError as refusal:
        raise StripeApiError(
            "A canceled subscription can only update its cancellation_details and metadata.", param=refusal.param
        ) from refusal
    after = account.update(before, metadata=metadata, cancellation_details=details)
    return events.changed(account, "customer.subscription.updated", before, after)


def _settings(account: Account, params: Params, before: Json) -> Json:
    changes: Json = {}
    if "default_payment_method" in params:
        changes["default_payment_method"] = signup.own_payment_method(account, params, before["customer"])
    if "payment_settings" in params:
        changes["payment_settings"] = signup.payment_settings(params)
    if "trial_settings" in params:
        changes["trial_settings"] = trials.settings(params)
    if "pause_collection" in params:
        changes["pause_collection"] = _pause_collection(params)
    if "collection_method" in params:
        changes["collection_method"] = params.choice("collection_method", ("charge_automatically", "send_invoice"))
    if "days_until_due" in params:
        changes["days_until_due"] = params.integer("days_until_due", least=0)
    return changes


def _pause_collection(params: Params) -> Json | None:
    given = params.child("pause_collection")
    if given is None:
        return None
    behavior = given.choice("behavior", ("keep_as_draft", "mark_uncollectible", "void"))
    if behavior is None:
        raise given.refuse("behavior", "Missing required param: behavior.", "parameter_missing")
    paused = {"behavior": behavior, "resumes_at": given.integer("resumes_at")}
    given.finish()
    return paused


def cancellation_details(params: Params, before: Json) -> Json:
    """Reads `cancellation_details`: what the customer said, laid over what is known."""
    given = params.child("cancellation_details")
    details: Json = before["cancellation_details"]
    if given is None:
        return details
    details = {**details, **given.given(("comment",))}
    if "feedback" in given:
        details["feedback"] = given.choice("feedback", FEEDBACK)
    given.finish()
    return details


def _cancellation(account: Account, params: Params, before: Json) -> Json:
    wanted: Json = {"details": cancellation_details(params, before)}
    if "cancel_at_period_end" in params:
        wanted["at_period_end"] = params.flag("cancel_at_period_end")
    if "cancel_at" in params:
        word = params.text("cancel_at")
        wanted["at"] = word if word in {"min_period_end", "max_period_end"} else params.integer("cancel_at")
        if isinstance(wanted["at"], int) and wanted["at"] <= account.now:
            raise params.refuse("cancel_at", "The cancel_at timestamp must be in the future.")
        if wanted.get("at_period_end") and wanted["at"] is not None:
            raise params.refuse("cancel_at", "You may only specify one of these: cancel_at_period_end, cancel_at.")
    return wanted


def _ending(account: Account, subscription: Json, wanted: Json) -> Json:
    """What an asked-for or withdrawn cancellation changes: `canceled_at` is when it was asked."""
    details = wanted["details"]
    cancel_at: int | None
    if wanted.get("at_period_end"):
        at_period_end, cancel_at = True, period_end(subscription)
    elif "at" in wanted:
        ends = [item["current_period_end"] for item in subscription["items"]]
        named = {"min_period_end": min(ends), "max_period_end": max(ends)}
        at_period_end, cancel_at = False, named.get(wanted["at"], wanted["at"])
    elif "at_period_end" in wanted:
        at_period_end, cancel_at = False, None
    else:
        return {"cancellation_details": details}
    reason = None if cancel_at is None else "cancellation_requested"
    return {
        "cancel_at": cancel_at,
        "cancel_at_period_end": at_period_end,
        "canceled_at": None if cancel_at is None else account.now,
        "cancellation_details": {**details, "reason": reason},
    }


def _discounted(account: Account, subscription: Json, wanted: list[Params]) -> Json:
    granted = discounts.granted(account, wanted, subscription["customer"])
    discounts.detach(account, subscription["discounts"])
    return account.update(subscription, discounts=discounts.attach(account, granted, subscription["id"]))


def _billed(account: Account, before: Json, subscription: Json, *, at_once: bool) -> Json:
    """Bills a cycle that began anew at once; mere prorations only when asked to."""
    ends = {item["id"]: item["current_period_end"] for item in before["items"]}
    restarted = any(
        ends.get(item["id"], item["current_period_end"]) != item["current_period_end"] for item in subscription["items"]
    )
    fresh = subscription["items"] if restarted else []
    if fresh or (at_once and waiting(account, subscription)):
        return bill(account, subscription, fresh, "subscription_update", at_once=True)
    return subscription


def _in_trial(account: Account, subscription: Json, trial_end: int, *, prorated: bool) -> Json:
    if trial_end <= account.now:
        if subscription["status"] != "trialing":
            return subscription
        return trials.ended_now(account, subscription)
    if subscription["status"] != "trialing":
        for item in subscription["items"] if prorated else []:
            prorate(account, subscription, item, sign=-1, at=account.now)
        subscription = {**subscription, "status": "trialing", "trial_start": account.now}
    extended = trials.lasting({**subscription, "trial_end": trial_end}, account.now, trial_end)
    return account.put(extended)


def _refuse_the_rest(params: Params) -> None:
    for name in signup.NOT_PLAYED:
        if name in params:
            raise not_played(name, name)
    params.finish()
