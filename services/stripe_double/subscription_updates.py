"""Updates, cancellation, pause and resumption of subscriptions by request."""

from services.stripe_double import (
    catalog,
    events,
    invoice_items,
    pending_updates,
    subscription_items,
    tax_rates,
    trials,
)
from services.stripe_double.account import Account, Json
from services.stripe_double.billing import bill
from services.stripe_double.errors import StripeApiError, card_declined, not_supported, resource_missing
from services.stripe_double.invoices import payment_intent_of
from services.stripe_double.params import Params
from services.stripe_double.subscription_items import period_end, with_new_cycle
from services.stripe_double.subscription_status import ENDED, end
from services.stripe_double.subscriptions import (
    PAYMENT_BEHAVIORS,
    PRORATION_BEHAVIORS,
    read_default_payment_method,
    read_payment_settings,
    reject_unsupported,
)

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


def update_subscription(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/subscriptions/{id}.

    Raises:
        StripeApiError: 400 for parameters that are unknown, not supported or invalid; for an ended subscription,
            every parameter but `metadata` and `cancellation_details`.
    """
    before = account.get("subscription", identifier)
    if before["status"] in ENDED:
        return _update_ended(account, params, before)
    changes: Json = {
        "_defer_events": True,
        "metadata": params.metadata(before["metadata"]),
        **params.sent_strings(("description",)),
        **_settings(account, params, before),
    }
    trial_end = trials.read_trial_end(account, params) if "trial_end" in params else None
    proration = str(params.choice("proration_behavior", PRORATION_BEHAVIORS, "create_prorations"))
    items = params.nested_list("items")
    discounts = params.nested_list("discounts") if "discounts" in params else None
    cancellation = _read_cancellation(account, params, before)
    payment_behavior = params.choice("payment_behavior", (*PAYMENT_BEHAVIORS, "pending_if_incomplete"))
    if payment_behavior == "pending_if_incomplete":
        pending_updates.reject_unsupported(params)
    proration_date = subscription_items.read_proration_date(params, before)
    params.boolean("off_session")
    reject_unsupported(params)

    subscription = account.update(before, **changes)
    if discounts is not None:
        subscription = _replace_discounts(account, subscription, discounts)
    if items:
        changed = subscription_items.with_items_changed(
            account, subscription, items, prorate=proration != "none", at=proration_date
        )
        charge_now = proration == "always_invoice"
        if payment_behavior == "pending_if_incomplete":
            subscription = pending_updates.change_items(account, subscription, changed, charge_now=charge_now)
        else:
            subscription = _bill_changed_items(account, before, account.put(changed), charge_now=charge_now)
        if payment_behavior == "error_if_incomplete":
            _require_paid(account, before, subscription)
    if trial_end is not None:
        subscription = _change_trial(account, subscription, trial_end, prorate=proration != "none")
    cancellation_members = _cancellation_members(account, subscription, cancellation)
    subscription = account.update(subscription, **cancellation_members, _defer_events=False)
    events.emit_if_changed(account, "customer.subscription.updated", before, subscription)
    return trials.notify_trial_will_end(account, subscription)


def _update_ended(account: Account, params: Params, before: Json) -> Json:
    metadata = params.metadata(before["metadata"])
    details = _read_cancellation_details(params, before)
    try:
        params.reject_unknown()
    except StripeApiError as error:
        raise StripeApiError(
            "A canceled subscription can only update its cancellation_details and metadata.", param=error.param
        ) from error
    after = account.update(before, metadata=metadata, cancellation_details=details)
    return events.emit_if_changed(account, "customer.subscription.updated", before, after)


def _settings(account: Account, params: Params, before: Json) -> Json:
    changes: Json = {}
    if "default_payment_method" in params:
        changes["default_payment_method"] = read_default_payment_method(account, params, before["customer"])
    if "default_tax_rates" in params:
        before_rates = before["default_tax_rates"]
        changes["default_tax_rates"] = tax_rates.read_default_tax_rates(account, params, before_rates)
    if "payment_settings" in params:
        changes["payment_settings"] = read_payment_settings(params)
    if "trial_settings" in params:
        changes["trial_settings"] = trials.read_trial_settings(params)
    if "pause_collection" in params:
        changes["pause_collection"] = _read_pause_collection(params)
    if "collection_method" in params:
        changes["collection_method"] = params.choice("collection_method", ("charge_automatically", "send_invoice"))
    if "days_until_due" in params:
        changes["days_until_due"] = params.integer("days_until_due", minimum=0)
    return changes


def _read_pause_collection(params: Params) -> Json | None:
    pause = params.nested("pause_collection")
    if pause is None:
        return None
    behavior = pause.choice("behavior", ("keep_as_draft", "mark_uncollectible", "void"))
    if behavior is None:
        raise pause.missing("behavior")
    paused = {"behavior": behavior, "resumes_at": pause.integer("resumes_at")}
    pause.reject_unknown()
    return paused


def _read_cancellation_details(params: Params, before: Json) -> Json:
    """Return the subscription's `cancellation_details`, updated with those of the request."""
    sent = params.nested("cancellation_details")
    details: Json = before["cancellation_details"]
    if sent is None:
        return details
    details = {**details, **sent.sent_strings(("comment",))}
    if "feedback" in sent:
        details["feedback"] = sent.choice("feedback", FEEDBACK)
    sent.reject_unknown()
    return details


def _read_cancellation(account: Account, params: Params, before: Json) -> Json:
    """Return `details`, and `at_period_end` and `at` if the request schedules or withdraws a cancellation.

    Raises:
        StripeApiError: 400 for invalid parameters, and for a subscription that a schedule manages.
    """
    if before["schedule"] is not None and ("cancel_at_period_end" in params or "cancel_at" in params):
        raise StripeApiError(
            f"The subscription is managed by the subscription schedule `{before['schedule']}`, and updating any"
            " cancelation behavior directly is not allowed. Please update the schedule instead."
        )
    cancellation: Json = {"details": _read_cancellation_details(params, before)}
    if "cancel_at_period_end" in params:
        cancellation["at_period_end"] = params.boolean("cancel_at_period_end")
    if "cancel_at" in params:
        text = params.string("cancel_at")
        at = text if text in {"min_period_end", "max_period_end"} else params.integer("cancel_at")
        cancellation["at"] = at
        if isinstance(at, int) and at <= account.now:
            raise params.invalid("cancel_at", "The cancel_at timestamp must be in the future.")
        if cancellation.get("at_period_end") and at is not None:
            raise params.invalid("cancel_at", "You may only specify one of these: cancel_at_period_end, cancel_at.")
    return cancellation


def _cancellation_members(account: Account, subscription: Json, cancellation: Json) -> Json:
    """Return the members that a cancellation changes; `canceled_at` is the time of the request."""
    details = cancellation["details"]
    cancel_at: int | None
    if cancellation.get("at_period_end"):
        at_period_end, cancel_at = True, period_end(subscription)
    elif "at" in cancellation:
        ends = [item["current_period_end"] for item in subscription["items"]]
        named = {"min_period_end": min(ends), "max_period_end": max(ends)}
        at_period_end, cancel_at = False, named.get(cancellation["at"], cancellation["at"])
    elif "at_period_end" in cancellation:
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


def _replace_discounts(account: Account, subscription: Json, entries: list[Params]) -> Json:
    discounts = catalog.discounts_from(account, entries, subscription["customer"])
    catalog.end_discounts(account, subscription["discounts"])
    return account.update(subscription, discounts=catalog.add_discounts(account, discounts, subscription["id"]))


def _bill_changed_items(account: Account, before: Json, subscription: Json, *, charge_now: bool) -> Json:
    """Bill a new billing cycle at once; bill mere prorations only with `charge_now`."""
    items = pending_updates.items_to_bill(account, before, subscription, charge_now=charge_now)
    return subscription if items is None else bill(account, subscription, items, "subscription_update", charge_now=True)


def _require_paid(account: Account, before: Json, subscription: Json) -> None:
    """Raise Stripe's 402, which undoes the update, if the invoice of the update was not paid."""
    invoice = account.get("invoice", subscription["latest_invoice"])
    if invoice["id"] != before["latest_invoice"] and invoice["status"] == "open":
        intent = payment_intent_of(account, invoice)
        error = intent["last_payment_error"] if intent else None
        raise card_declined(error["decline_code"] if error else "authentication_required")


def _change_trial(account: Account, subscription: Json, trial_end: int, *, prorate: bool) -> Json:
    if trial_end <= account.now:
        if subscription["status"] != "trialing":
            return subscription
        return trials.end_trial_now(account, subscription)
    if subscription["status"] != "trialing":
        if prorate:
            _credit_unused_time(account, subscription)
        subscription = {**subscription, "status": "trialing", "trial_start": account.now}
    extended = trials.with_trial_period({**subscription, "trial_end": trial_end}, account.now, trial_end)
    return account.put(extended)


def _credit_unused_time(account: Account, subscription: Json) -> None:
    for item in subscription["items"]:
        invoice_items.prorate(account, subscription, item, sign=-1, at=account.now)


def _bill_pending_items(account: Account, subscription: Json, metered: list[Json]) -> Json:
    if metered or invoice_items.pending_items(account, subscription):
        return bill(account, subscription, metered, "subscription_update", charge_now=True)
    return subscription


def cancel_subscription(account: Account, params: Params, identifier: str) -> Json:
    """DELETE /v1/subscriptions/{id}: cancel now; an ended subscription is answered with 404.

    `prorate` credits the unused time; `invoice_now` makes a final invoice, which bills the usage of metered prices
    and turns the credit into customer balance. Only a refund returns money.
    """
    before = account.get("subscription", identifier)
    if before["status"] in ENDED:
        raise resource_missing("subscription", identifier)
    prorate = params.boolean("prorate", default=False)
    invoice_now = params.boolean("invoice_now", default=False)
    details = _read_cancellation_details(params, before)
    params.reject_unknown()
    subscription = account.update(before, cancellation_details=details, _defer_events=True)
    if prorate and subscription["status"] != "incomplete":
        _credit_unused_time(account, subscription)
    if invoice_now:
        metered = subscription_items.metered_until_now(account, subscription)
        subscription = _bill_pending_items(account, subscription, metered)
    elif not prorate:
        invoice_items.delete_pending_items(account, subscription)
    return end(account, account.update(subscription, _defer_events=False), reason="cancellation_requested")


def pause_subscription(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/subscriptions/{id}/pause: no periods and no invoices until it is resumed."""
    before = account.get("subscription", identifier)
    params.choice("type", ("subscription",))
    invoicing = params.choice("invoicing_behavior", ("invoice", "pending_invoice_item"), "pending_invoice_item")
    credit = _read_unused_time(params)
    params.reject_unknown()
    if before["status"] not in {"active", "past_due", "trialing"}:
        raise StripeApiError(f"You can't pause a subscription that is {before['status']}.")
    subscription = account.update(before, _defer_events=True)
    if credit:
        _credit_unused_time(account, subscription)
    if invoicing == "invoice":
        subscription = _bill_pending_items(account, subscription, [])
    paused = account.update(
        subscription,
        status="paused",
        status_details=trials.paused_details(account, "pause_requested"),
        _defer_events=False,
    )
    events.emit(account, "customer.subscription.paused", paused)
    return events.emit_if_changed(account, "customer.subscription.updated", before, paused)


def _read_unused_time(params: Params) -> bool:
    """Return whether `bill_for` asks for a credit of the unused time, which is the default."""
    bill_for = params.nested("bill_for")
    if bill_for is None:
        return True
    unused = bill_for.nested("unused_time_from")
    choice = unused.choice("type", ("now", "none")) if unused else "now"
    bill_for.raw("outstanding_usage_through")  # No effect: the first invoice after the pause bills the usage.
    bill_for.reject_unknown()
    return choice != "none"


def resume_subscription(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/subscriptions/{id}/resume: start a new billing cycle now, and charge it at once."""
    before = account.get("subscription", identifier)
    behavior = params.choice(
        "payment_behavior", ("resume_on_payment_attempt", "resume_on_payment_success"), "resume_on_payment_attempt"
    )
    anchor = params.nested("billing_cycle_anchor")
    params.choice("proration_behavior", PRORATION_BEHAVIORS)
    if anchor is not None and anchor.string("type") == "unchanged":
        raise not_supported("resuming with the old anchor", "billing_cycle_anchor[type]")
    if behavior == "resume_on_payment_success":
        raise not_supported(behavior, "payment_behavior")
    params.reject_unknown()
    if before["status"] != "paused":
        raise StripeApiError(f"You can only resume paused subscriptions, not {before['status']} ones.")
    resumed = {**before, "status": "active", "status_details": None, "_defer_events": True}
    started = account.put(with_new_cycle(account, resumed, account.now))
    subscription = bill(account, started, started["items"], "subscription_update", charge_now=True)
    subscription = account.update(subscription, _defer_events=False)
    events.emit(account, "customer.subscription.resumed", subscription)
    return events.emit_if_changed(account, "customer.subscription.updated", before, subscription)
