"""Subscription schedules: phases of prices, and what happens after the last one."""

from collections.abc import Callable

from services.stripe_double import events, pending_updates, subscription_items, subscription_status, subscriptions
from services.stripe_double.account import Account, Json
from services.stripe_double.billing import bill
from services.stripe_double.clock import next_period_end
from services.stripe_double.errors import StripeApiError, not_supported
from services.stripe_double.params import Params
from services.stripe_double.prices import item_params, read_quantity, recurring_price
from services.stripe_double.rendering import filter_customer, list_page

END_BEHAVIORS = ("cancel", "release")
_LIVE = ("active", "not_started")


def create_schedule(account: Account, params: Params) -> Json:
    """POST /v1/subscription_schedules: from a subscription, or with a new one that starts now.

    Raises:
        StripeApiError: 400 for invalid parameters, a subscription that has a schedule, or a start in the future.
    """
    subscription_id = params.string("from_subscription")
    if subscription_id is not None:
        params.reject_unknown()
        return _schedule_of(account, account.get("subscription", subscription_id, param="from_subscription"))
    customer = params.required("customer")
    if params.string("start_date") != "now":
        raise not_supported("schedules that start later", "start_date")
    end_behavior = params.choice("end_behavior", END_BEHAVIORS, "release")
    metadata = params.metadata()
    entries = params.nested_list("phases")
    if not entries:
        raise params.missing("phases")
    params.reject_unknown()
    phases = _read_phases(account, entries, start=account.now)
    items = [item_params(item) for item in phases[0]["items"]]
    subscription = subscriptions.create_subscription(account, Params({"customer": customer, "items": items}))
    return _put(account, subscription, phases, str(end_behavior), metadata)


def _schedule_of(account: Account, subscription: Json) -> Json:
    if subscription["schedule"] is not None:
        raise StripeApiError(
            "You cannot migrate a subscription that is already attached to a schedule: "
            f"{subscription['id']} is attached to {subscription['schedule']}.",
            param="from_subscription",
        )
    period = subscription["items"][0]
    items = [_phase_item(item["price"], item["quantity"]) for item in subscription["items"]]
    phase = _phase(subscription["currency"], items, period["current_period_start"], period["current_period_end"])
    return _put(account, subscription, [phase], "release", {})


def _put(account: Account, subscription: Json, phases: list[Json], end_behavior: str, metadata: Json) -> Json:
    schedule = account.new(
        "subscription_schedule",
        application=None,
        billing_mode=subscription["billing_mode"],
        canceled_at=None,
        completed_at=None,
        current_phase={name: phases[0][name] for name in ("start_date", "end_date")},
        customer=subscription["customer"],
        customer_account=None,
        default_settings={
            "application_fee_percent": None,
            "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
            "billing_cycle_anchor": "automatic",
            "billing_thresholds": None,
            "collection_method": subscription["collection_method"],
            "default_payment_method": None,
            "description": None,
            "invoice_settings": {
                "account_tax_ids": None,
                "custom_fields": None,
                "days_until_due": None,
                "description": None,
                "footer": None,
                "issuer": {"type": "self"},
            },
            "on_behalf_of": None,
            "transfer_data": None,
        },
        end_behavior=end_behavior,
        metadata=metadata,
        phases=phases,
        released_at=None,
        released_subscription=None,
        status="active",
        subscription=subscription["id"],
        test_clock=None,
    )
    account.put(schedule)
    events.emit(account, "subscription_schedule.created", schedule)
    _attach(account, subscription, schedule["id"])
    return schedule


def _attach(account: Account, subscription: Json, schedule_id: str | None) -> None:
    after = account.update(subscription, schedule=schedule_id)
    events.emit(account, "customer.subscription.updated", after, before=subscription)


def _read_phases(account: Account, entries: list[Params], start: int) -> list[Json]:
    phases = []
    for params in entries:
        start = params.integer("start_date") or start
        items = [_read_item(account, entry) for entry in params.nested_list("items")]
        if not items:
            raise params.missing("items")
        price = account.get("price", items[0]["price"])
        end = params.integer("end_date")
        iterations = params.integer("iterations", minimum=1)
        duration = params.nested("duration")
        if end is None and duration is not None:
            count = duration.integer("interval_count", 1, minimum=1)
            end = next_period_end(start, duration.required("interval"), int(count or 1), start)
            duration.reject_unknown()
        if end is None:
            if iterations is None:
                raise params.missing("end_date")
            recurring, end = price["recurring"], start
            for _ in range(iterations):
                end = next_period_end(start, recurring["interval"], recurring["interval_count"], end)
        params.choice("proration_behavior", subscriptions.PRORATION_BEHAVIORS)
        params.reject_unknown()
        phases.append(_phase(price["currency"], items, start, end))
        start = end
    return phases


def _read_item(account: Account, params: Params) -> Json:
    price = recurring_price(account, params)
    item = _phase_item(price["id"], read_quantity(params, price))
    params.reject_unknown()
    return item


def _phase_item(price: str, quantity: int | None) -> Json:
    return {
        "billing_thresholds": None,
        "discounts": [],
        "metadata": {},
        "plan": price,
        "price": price,
        **({} if quantity is None else {"quantity": quantity}),
        "tax_rates": [],
    }


def _phase(currency: str, items: list[Json], start: int, end: int) -> Json:
    return {
        "add_invoice_items": [],
        "application_fee_percent": None,
        "billing_cycle_anchor": None,
        "billing_thresholds": None,
        "collection_method": None,
        "currency": currency,
        "default_payment_method": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "end_date": end,
        "invoice_settings": None,
        "items": items,
        "metadata": {},
        "on_behalf_of": None,
        "proration_behavior": "create_prorations",
        "start_date": start,
        "transfer_data": None,
        "trial_end": None,
    }


def update_schedule(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/subscription_schedules/{id}: `end_behavior`, `phases` and `metadata`."""
    before = _live(account, identifier)
    changes: Json = {"metadata": params.metadata(before["metadata"])}
    if "end_behavior" in params:
        changes["end_behavior"] = params.choice("end_behavior", END_BEHAVIORS)
    params.choice("proration_behavior", subscriptions.PRORATION_BEHAVIORS)
    entries = params.nested_list("phases")
    params.reject_unknown()
    if entries:
        changes["phases"] = _read_phases(account, entries, start=before["phases"][0]["start_date"])
        current = next((phase for phase in changes["phases"] if phase["end_date"] > account.now), None)
        if current is None:
            raise params.invalid("phases", "The current phase must end in the future.")
        changes["current_phase"] = {name: current[name] for name in ("start_date", "end_date")}
    return events.emit_if_changed(account, "subscription_schedule.updated", before, account.update(before, **changes))


def release_schedule(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/subscription_schedules/{id}/release: the subscription continues without the schedule."""
    params.reject_unknown()
    return _release(account, _live(account, identifier))


def cancel_schedule(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/subscription_schedules/{id}/cancel: the subscription ends with the schedule, now."""
    params.reject_unknown()
    schedule = _live(account, identifier)
    subscription_status.end(
        account, account.get("subscription", schedule["subscription"]), reason="cancellation_requested"
    )
    after = account.update(schedule, status="canceled", canceled_at=account.now, current_phase=None)
    events.emit(account, "subscription_schedule.canceled", after)
    return after


def _live(account: Account, identifier: str) -> Json:
    schedule = account.get("subscription_schedule", identifier)
    if schedule["status"] not in _LIVE:
        raise StripeApiError(f"You can't change a subscription schedule that is {schedule['status']}.")
    return schedule


def _release(account: Account, schedule: Json) -> Json:
    after = account.update(
        schedule,
        status="released",
        released_at=account.now,
        released_subscription=schedule["subscription"],
        subscription=None,
        current_phase=None,
    )
    events.emit(account, "subscription_schedule.released", after)
    _attach(account, account.get("subscription", schedule["subscription"]), None)
    return after


def list_schedules(account: Account, params: Params) -> Json:
    """GET /v1/subscription_schedules."""
    found = filter_customer(account, params, "subscription_schedule")
    return list_page(account, params, "/v1/subscription_schedules", found)


def due_time(schedule: Json) -> int | None:
    """Return the end of the current phase in Unix seconds; None if the schedule is over."""
    return int(schedule["current_phase"]["end_date"]) if schedule["status"] == "active" else None


def end_phase(account: Account, schedule: Json) -> None:
    """End the current phase: start the next one, or do what `end_behavior` says."""
    subscription = account.get("subscription", schedule["subscription"])
    if subscription["status"] in subscription_status.ENDED:
        account.update(schedule, status="canceled", canceled_at=account.now, current_phase=None)
        return
    end = schedule["current_phase"]["end_date"]
    following = next((phase for phase in schedule["phases"] if phase["start_date"] >= end), None)
    if following is not None:
        account.update(schedule, current_phase={name: following[name] for name in ("start_date", "end_date")})
        _start_phase(account, subscription, following)
    elif schedule["end_behavior"] == "release":
        _release(account, schedule)
    else:
        after = account.update(schedule, status="completed", completed_at=account.now, current_phase=None)
        subscription_status.end(account, subscription, reason="cancellation_requested")
        events.emit(account, "subscription_schedule.completed", after)


def _start_phase(account: Account, subscription: Json, phase: Json) -> None:
    """Change the items to those of a phase, without prorations: phases of the double end with a period.

    A price with another interval starts a new billing cycle, which is billed now; others are billed by the renewal.
    """
    old = subscription["items"]
    entries = [
        item_params(item) | ({"id": old[index]["id"]} if index < len(old) else {})
        for index, item in enumerate(phase["items"])
    ]
    removed = [{"id": item["id"], "deleted": "true"} for item in old[len(entries) :]]
    params = Params({"items": entries + removed}).nested_list("items")
    after = account.put(subscription_items.with_items_changed(account, subscription, params, prorate=False))
    new_cycle = pending_updates.items_to_bill(account, subscription, after, charge_now=False)
    if new_cycle is not None:
        after = bill(account, after, new_cycle, "subscription_cycle", charge_now=True)
    events.emit(account, "customer.subscription.updated", after, before=subscription)


def _retrieve(account: Account, params: Params, identifier: str) -> Json:
    params.reject_unknown()
    return account.get("subscription_schedule", identifier)


ROUTES: dict[str, Callable[..., Json]] = {
    "GET /v1/subscription_schedules": list_schedules,
    "POST /v1/subscription_schedules": create_schedule,
    "GET /v1/subscription_schedules/{}": _retrieve,
    "POST /v1/subscription_schedules/{}": update_schedule,
    "POST /v1/subscription_schedules/{}/cancel": cancel_schedule,
    "POST /v1/subscription_schedules/{}/release": release_schedule,
}
"""Requests about schedules."""
