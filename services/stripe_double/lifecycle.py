"""What does time do? Trial ends, renewals, attempts to collect, expiry: each when it is due."""

import heapq

from services.stripe_double import collection, events, invoices, payments, trials
from services.stripe_double.account import Account, Json
from services.stripe_double.billing import bill, period_end, with_period
from services.stripe_double.clock import DAY, HOUR
from services.stripe_double.endings import end, expire

INCOMPLETE_TIME = 23 * HOUR
"""How long the first invoice may stay unpaid (/billing/subscriptions/overview)."""
_RENEWING = ("active", "past_due", "unpaid")


def due(account: Account, entry: Json) -> int | None:
    """Returns when time does something to an object next, in Unix seconds; None for never."""
    if entry["object"] == "subscription":
        return min(_subscription_times(account, entry), default=None)
    if entry["object"] == "invoice":
        if entry["status"] == "draft":
            at: int | None = entry["automatically_finalizes_at"]
            return at
        return entry["next_payment_attempt"] if entry["status"] == "open" else None
    if entry["object"] == "payment_intent" and entry["status"] == "processing":
        return int(entry["_settles_at"])
    return None


def _subscription_times(account: Account, subscription: Json) -> list[int]:
    status = subscription["status"]
    if status == "incomplete":
        return [subscription["created"] + INCOMPLETE_TIME]
    times = []
    if status in {*_RENEWING, "trialing", "paused"} and subscription["cancel_at"] is not None:
        times.append(subscription["cancel_at"])
    if status == "trialing":
        times.append(subscription["trial_end"])
        if subscription["_told_trial_end"] != subscription["trial_end"]:
            times.append(subscription["trial_end"] - trials.NOTICE)
    if status in _RENEWING:
        times.append(min(item["current_period_end"] for item in subscription["items"]))
        paused = subscription["pause_collection"]
        if paused is not None and paused["resumes_at"] is not None:
            times.append(paused["resumes_at"])
    if status in {"active", "trialing"} and (notice := _renewal_notice(account, subscription)) is not None:
        times.append(notice)
    return times


def _renewal_notice(account: Account, subscription: Json) -> int | None:
    renewal = period_end(subscription)
    days = account.settings.upcoming_days
    if not days or subscription["cancel_at"] is not None or subscription["_told_renewal"] == renewal:
        return None
    started = min(item["current_period_start"] for item in subscription["items"])
    at = renewal - days * DAY
    # Nobody is told of a renewal before the period that it ends has begun.
    return at if at > started else None


def happen(account: Account, entry: Json) -> None:
    """Does to an object what is due now; the clock stands at that time and a change is open."""
    if entry["object"] == "subscription":
        _subscription_due(account, entry)
    elif entry["object"] == "payment_intent":
        intent = payments.settle(account, entry)
        if intent["_invoice"] is not None:
            collection.follow(account, intent, automatic=True)
    elif entry["status"] == "draft":
        collection.settle(account, entry)
    else:
        collection.retry(account, entry)


def _subscription_due(account: Account, subscription: Json) -> None:
    now, status = account.now, subscription["status"]
    paused = subscription["pause_collection"]
    if status == "incomplete":
        expire(account, subscription)
    elif subscription["cancel_at"] is not None and subscription["cancel_at"] <= now:
        end(account, subscription, reason="cancellation_requested")
    elif status == "trialing" and subscription["trial_end"] <= now:
        trials.over(account, subscription)
    elif status in _RENEWING and min(item["current_period_end"] for item in subscription["items"]) <= now:
        _renew(account, subscription)
    elif paused is not None and paused["resumes_at"] is not None and paused["resumes_at"] <= now:
        after = account.update(subscription, pause_collection=None)
        events.changed(account, "customer.subscription.updated", subscription, after)
    elif status == "trialing" and subscription["_told_trial_end"] != subscription["trial_end"]:
        _announce_trial_end(account, subscription)
    else:
        _announce_renewal(account, subscription)


def _renew(account: Account, subscription: Json) -> None:
    anchor = subscription["billing_cycle_anchor"]
    items = [
        with_period(account, item, anchor, item["current_period_end"])
        if item["current_period_end"] <= account.now
        else item
        for item in subscription["items"]
    ]
    fresh = [new for old, new in zip(subscription["items"], items, strict=True) if new is not old]
    renewed = bill(account, account.update(subscription, items=items), fresh, "subscription_cycle", at_once=False)
    events.emit(account, "customer.subscription.updated", renewed, before=subscription)


def _announce_trial_end(account: Account, subscription: Json) -> None:
    # With a long trial the renewal's notice may fall due before; what is not due yet stays as it was.
    if trials.ending_soon(account, subscription) is subscription:
        _announce_renewal(account, subscription)


def _announce_renewal(account: Account, subscription: Json) -> None:
    account.update(subscription, _told_renewal=period_end(subscription))
    # A preview has no id: it is no invoice yet. That trips whoever stores invoices by theirs.
    total = sum(account.get("price", item["price"])["unit_amount"] * item["quantity"] for item in subscription["items"])
    events.emit(
        account,
        "invoice.upcoming",
        {
            "object": "upcoming_invoice",
            "amount_due": total,
            "billing_reason": "upcoming",
            "currency": subscription["currency"],
            "customer": subscription["customer"],
            "next_payment_attempt": period_end(subscription) + invoices.DRAFT_TIME,
            "parent": {"subscription_details": {"subscription": subscription["id"]}, "type": "subscription_details"},
            "status": "draft",
            "total": total,
        },
    )


class Schedule:
    """What is due when, over all objects: a heap in which rows go stale when their object changes.

    Args:
        account: Whose objects; it is watched from now on.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._heap: list[tuple[int, str, str]] = []
        account.on_put.append(self._note)

    def _note(self, entry: Json) -> None:
        if entry["object"] in {"subscription", "invoice", "payment_intent"}:
            at = due(self._account, entry)
            if at is not None:
                heapq.heappush(self._heap, (at, entry["object"], entry["id"]))

    def next(self) -> tuple[int, Json] | None:
        """Returns what is due first, and when; None when nothing ever is."""
        while self._heap:
            at, kind, identifier = self._heap[0]
            entry = self._account.find(kind, identifier)
            if entry is not None and due(self._account, entry) == at:
                return at, entry
            heapq.heappop(self._heap)
        return None

    def run(self, until: int) -> bool:
        """Does the next thing that is due by `until`; False when there is none.

        It happens at its own time, which may lie behind when nobody looked, but never before what has
        happened already: a cancellation taken back can make the notice of a renewal overdue.
        """
        upcoming = self.next()
        if upcoming is None or upcoming[0] > until:
            return False
        at, entry = upcoming
        with self._account.clock.pinned(max(at, self._account.latest)), self._account.change():
            happen(self._account, entry)
        return True
