"""Changes that time causes: trial ends, renewals, collection attempts, bank debits, expiry."""

import heapq

from services.stripe_double import (
    billing,
    checkout_sessions,
    events,
    invoices,
    payments,
    subscription_schedules,
    subscription_status,
    trials,
)
from services.stripe_double.account import Account, Json
from services.stripe_double.checkout_creation import KIND
from services.stripe_double.clock import DAY, HOUR
from services.stripe_double.subscription_items import metered_until_now, period_end, with_period

INCOMPLETE_TIME = 23 * HOUR
"""Time to pay the first invoice before the subscription expires (docs.stripe.com/billing/subscriptions/overview)."""
_SCHEDULED = (KIND, "subscription", "subscription_schedule", "invoice", "payment_intent")
"""Kinds of objects that time changes."""
_RENEWING = ("active", "past_due", "unpaid")


def due_time(account: Account, entry: Json) -> int | None:
    """Return the Unix time of an object's next change by time; None if there is none."""
    if entry["object"] == "subscription":
        return min(_subscription_due_times(account, entry), default=None)
    if entry["object"] == "invoice":
        if entry["status"] == "draft":
            at: int | None = entry["automatically_finalizes_at"]
            return at
        return entry["next_payment_attempt"] if entry["status"] == "open" else None
    if entry["object"] == "subscription_schedule":
        return subscription_schedules.due_time(entry)
    if entry["object"] == KIND:
        return int(entry["expires_at"]) if entry["status"] == "open" else None
    if entry["object"] == "payment_intent" and entry["status"] == "processing":
        return int(entry["_settles_at"])
    return None


def _subscription_due_times(account: Account, subscription: Json) -> list[int]:
    status = subscription["status"]
    if status == "incomplete":
        return [subscription["created"] + INCOMPLETE_TIME]
    times = []
    if subscription["pending_update"] is not None:
        times.append(subscription["pending_update"]["expires_at"])
    if status in {*_RENEWING, "trialing", "paused"} and subscription["cancel_at"] is not None:
        times.append(subscription["cancel_at"])
    if status == "trialing":
        times.append(subscription["trial_end"])
        if subscription["_notified_trial_end"] != subscription["trial_end"]:
            times.append(subscription["trial_end"] - trials.NOTICE)
    if status in _RENEWING:
        times.append(_first_period_end(subscription))
        pause = subscription["pause_collection"]
        if pause is not None and pause["resumes_at"] is not None:
            times.append(pause["resumes_at"])
    if status in {"active", "trialing"} and (notice := _renewal_notice_time(account, subscription)) is not None:
        times.append(notice)
    return times


def _first_period_end(subscription: Json) -> int:
    return int(min(item["current_period_end"] for item in subscription["items"]))


def _renewal_notice_time(account: Account, subscription: Json) -> int | None:
    renewal = period_end(subscription)
    days = account.settings.upcoming_days
    if not days or subscription["cancel_at"] is not None or subscription["_notified_renewal"] == renewal:
        return None
    start = min(item["current_period_start"] for item in subscription["items"])
    at = renewal - days * DAY
    # No notice for periods shorter than the notice time: it would come before the period begins.
    return at if at > start else None


def apply_due_change(account: Account, entry: Json) -> None:
    """Make the change of an object that is due now.

    The clock must be pinned to the due time, and a change of the account must be open.
    """
    if entry["object"] == "subscription":
        _change_subscription(account, entry)
    elif entry["object"] == "subscription_schedule":
        subscription_schedules.end_phase(account, entry)
    elif entry["object"] == "payment_intent":
        intent = payments.settle_bank_debit(account, entry)
        if intent["_invoice"] is not None:
            billing.apply_payment(account, intent, automatic=True)
        checkout_sessions.payment_settled(account, intent)
    elif entry["object"] == KIND:
        checkout_sessions.expire(account, entry)
    elif entry["status"] == "draft":
        billing.finalize_and_collect(account, entry)
    else:
        billing.retry(account, entry)


def _change_subscription(account: Account, subscription: Json) -> None:
    now, status = account.now, subscription["status"]
    pause = subscription["pause_collection"]
    if status == "incomplete":
        subscription_status.expire(account, subscription)
    elif subscription["pending_update"] is not None and subscription["pending_update"]["expires_at"] <= now:
        invoices.void(account, account.get("invoice", subscription["_pending"]["invoice"]))
    elif subscription["cancel_at"] is not None and subscription["cancel_at"] <= now:
        metered = metered_until_now(account, subscription)
        if metered:
            subscription = billing.bill(account, subscription, metered, "subscription_cycle", charge_now=True)
        subscription_status.end(account, subscription, reason="cancellation_requested")
    elif status == "trialing" and subscription["trial_end"] <= now:
        trials.end_trial(account, subscription)
    elif status in _RENEWING and _first_period_end(subscription) <= now:
        _renew(account, subscription)
    elif pause is not None and pause["resumes_at"] is not None and pause["resumes_at"] <= now:
        after = account.update(subscription, pause_collection=None)
        events.emit_if_changed(account, "customer.subscription.updated", subscription, after)
    elif status == "trialing" and subscription["_notified_trial_end"] != subscription["trial_end"]:
        # During a long trial the notice of the renewal may be due first; then the trial's notice does nothing yet.
        if trials.notify_trial_will_end(account, subscription) is subscription:
            _notify_upcoming_invoice(account, subscription)
    else:
        _notify_upcoming_invoice(account, subscription)


def _renew(account: Account, subscription: Json) -> None:
    anchor = subscription["billing_cycle_anchor"]
    items = [
        with_period(account, item, anchor, item["current_period_end"])
        if item["current_period_end"] <= account.now
        else item
        for item in subscription["items"]
    ]
    renewed_items = [new for old, new in zip(subscription["items"], items, strict=True) if new is not old]
    subscription_now = account.update(subscription, items=items)
    renewed = billing.bill(account, subscription_now, renewed_items, "subscription_cycle", charge_now=False)
    events.emit(account, "customer.subscription.updated", renewed, before=subscription)


def _notify_upcoming_invoice(account: Account, subscription: Json) -> None:
    end = period_end(subscription)
    account.update(subscription, _notified_renewal=end)
    anchor = subscription["billing_cycle_anchor"]
    items = [with_period(account, item, anchor, item["current_period_end"]) for item in subscription["items"]]
    invoice = invoices.preview(account, subscription, items)
    # The event's invoice has no `id`: receivers that store invoices by ID must ignore it
    # (docs.stripe.com/api/events/types).
    del invoice["id"]
    events.emit(account, "invoice.upcoming", {**invoice, "next_payment_attempt": end + invoices.DRAFT_TIME})


class Scheduler:
    """Priority queue of the due times of all objects; entries of changed objects are skipped.

    Args:
        account: The account whose objects are observed from now on.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._heap: list[tuple[int, bool, str, str]] = []
        account.on_put.append(self._index)

    def _index(self, entry: Json) -> None:
        if entry["object"] in _SCHEDULED:
            at = due_time(self._account, entry)
            if at is not None:
                # A schedule changes or ends its subscription before that renews.
                heapq.heappush(
                    self._heap, (at, entry["object"] != "subscription_schedule", entry["object"], entry["id"])
                )

    def next(self) -> tuple[int, Json] | None:
        """Return the earliest due time and its object; None if nothing is scheduled."""
        while self._heap:
            at, _, kind, identifier = self._heap[0]
            entry = self._account.find(kind, identifier)
            if entry is not None and due_time(self._account, entry) == at:
                return at, entry
            heapq.heappop(self._heap)
        return None

    def run_next(self, until: int) -> bool:
        """Make the earliest change that is due by `until`; return False if there is none.

        The change gets its due time, which may have passed, but never a time before the account's last
        change: withdrawing a cancellation, for example, makes the notice of a renewal overdue.
        """
        upcoming = self.next()
        if upcoming is None or upcoming[0] > until:
            return False
        at, entry = upcoming
        with self._account.clock.pinned(max(at, self._account.last_changed)), self._account.change():
            apply_due_change(self._account, entry)
        return True
