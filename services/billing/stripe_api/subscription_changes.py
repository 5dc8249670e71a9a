"""Changes of subscriptions in Stripe: trials, cancellations, later payments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote

from services.billing.stripe_api.calls import RESOURCE_MISSING, Calls, StripeRefused
from services.billing.stripe_api.parsing import (
    COUPON_COMMENT,
    DUPLICATE_COMMENT,
    EXTENDED_BY,
    TRIAL_COMMENT,
    UNDONE_COMMENT,
    Json,
)

TRIAL_DAYS: Final = 14


@dataclass(frozen=True, slots=True)
class CancellationReason:
    """Why a person cancels.

    ``feedback`` is one of Stripe's values (https://docs.stripe.com/api/subscriptions/cancel: ``cancellation_details``).
    """

    feedback: str | None = None
    comment: str | None = None

    @property
    def details(self) -> Json:
        """Stripe's parameter.

        A comment always has a feedback, by default ``other``, as it has in Stripe's customer portal. So nobody can type
        a comment of Nest's.
        """
        comment = (self.comment or "").strip()
        return {"comment": comment, "feedback": self.feedback or ("other" if comment else "")}


class SubscriptionChanges:
    """The calls to a Stripe account that change subscriptions."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def create_trial(self, *, customer_id: str, price: str, user_id: str, trial_id: str, key: str) -> str:
        """Create a subscription with 14 free days and return its ID.

        Raises:
            KeySpent: the idempotency key can no longer create one; look whether it exists.
            StripeRefused: Stripe rejected the request.
        """
        params = {
            "customer": customer_id,
            "items": [{"price": price}],
            "trial_period_days": TRIAL_DAYS,
            # A trial needs no card. By default Stripe would create an invoice at its end and try to collect it for
            # weeks; if the subscription is cancelled instead, the person can subscribe anew.
            "trial_settings": {"end_behavior": {"missing_payment_method": "cancel"}},
            "metadata": {"user_id": user_id, "trial_id": trial_id},
        }
        return str((await self.calls.post("create_trial", "/v1/subscriptions", params, key=key))["id"])

    async def cancel_duplicate(
        self, subscription_id: str, *, kept_subscription_id: str, key: str, prorate: bool = True
    ) -> None:
        """Cancel a subscription now, and note in it which one of ours was kept; do nothing if it has ended already.

        ``prorate`` credits and invoices the unused time, which an unpaid period must not get.

        Raises:
            KeySpent: the idempotency key can no longer cancel it; another key may.
            StripeRefused: Stripe rejected the request.
        """
        await self._cancel(subscription_id, f"{DUPLICATE_COMMENT}{kept_subscription_id}", key, prorate=prorate)

    async def end_replaced_trial(
        self, subscription_id: str, *, kept_subscription_id: str, carried_over_days: int, key: str
    ) -> None:
        """End a trial whose user subscribed, and note which of our subscriptions replaces it; as ``cancel_duplicate``.

        ``carried_over_days`` were added to that one before by ``extend``.
        """
        comment = TRIAL_COMMENT.format(kept=kept_subscription_id, days=carried_over_days)
        await self._cancel(subscription_id, comment, key, prorate=False)

    async def extend(self, subscription_id: str, *, until: datetime, trial_subscription_id: str, key: str) -> None:
        """Move the next payment of a subscription to a later time, free of charge.

        Stripe's way to do so is a trial from now on, without proration
        (https://docs.stripe.com/billing/subscriptions/billing-cycle#changing). The metadata name our ID of the trial's
        subscription whose days these are, so that they are added once.

        Raises:
            KeySpent: the idempotency key can no longer change it; look whether it was changed.
            StripeRefused: Stripe rejected the request, for example a time more than two years ahead.
        """
        params = {
            "trial_end": int(until.timestamp()),
            "proration_behavior": "none",
            "metadata": {EXTENDED_BY: trial_subscription_id},
        }
        await self._update("extend", subscription_id, params, key)

    async def end_trial(self, subscription_id: str, *, key: str) -> None:
        """End the trial of a subscription now, and charge its first period.

        Raises:
            KeySpent: the idempotency key can no longer end it; another key may.
            StripeRefused: Stripe rejected the request.
        """
        params = {"trial_end": "now", "proration_behavior": "none"}
        await self.calls.post("end_trial", f"/v1/subscriptions/{_quoted(subscription_id)}", params, key=key)

    async def cancel_undone_trial(self, subscription_id: str, *, key: str) -> None:
        """Cancel the subscription of a trial that nobody redeemed: now, without proration and without an invoice.

        Raises:
            KeySpent, StripeRefused: as for ``cancel_duplicate``.
        """
        await self._cancel(subscription_id, UNDONE_COMMENT, key, prorate=False)

    async def resume(self, subscription_id: str, *, key: str) -> None:
        """Resume a paused subscription: a new period begins now, and its invoice is charged.

        https://docs.stripe.com/billing/subscriptions/trials#resume-a-paused-subscription

        Raises:
            KeySpent: the idempotency key can no longer resume it; another key may.
            StripeRefused: Stripe rejected the request, above all because it is not paused any more.
        """
        await self.calls.post("resume", f"/v1/subscriptions/{_quoted(subscription_id)}/resume", {}, key=key)

    async def cancel_without_coupon(self, subscription_id: str, *, key: str) -> None:
        """Cancel a subscription that lacks the required coupon, as ``cancel_duplicate`` does."""
        await self._cancel(subscription_id, COUPON_COMMENT, key)

    async def cancel_for_person(
        self, subscription_id: str, reason: CancellationReason, *, prorate: bool, invoice_now: bool, key: str
    ) -> None:
        """Cancel a subscription now, for its user; do nothing if it has ended already.

        ``prorate`` credits the unused time to the customer's balance. ``invoice_now`` makes a final invoice: of usage
        and prorations that were not invoiced yet, and of the credit.

        Raises:
            KeySpent, StripeRefused: as for ``cancel_duplicate``.
        """
        await self._delete(subscription_id, reason.details, key, prorate=prorate, invoice_now=invoice_now)

    async def plan_cancellation(self, subscription_id: str, reason: CancellationReason, *, key: str) -> None:
        """Cancel a subscription at the end of its period, which is the end of its trial while it has one.

        No schedule may manage the subscription: Stripe refuses this then.

        Raises:
            KeySpent, StripeRefused: as for ``cancel_duplicate``.
        """
        params = {"cancel_at_period_end": True, "cancellation_details": reason.details}
        await self._update("plan_cancellation", subscription_id, params, key)

    async def continue_subscription(
        self, subscription_id: str, *, by_flag: bool, by_date: bool, collect: bool, key: str
    ) -> None:
        """Withdraw a planned cancellation, which is by a flag or by a date, and resume the collection of payments.

        Raises:
            KeySpent, StripeRefused: as for ``cancel_duplicate``.
        """
        params: Json = {}
        if by_flag or by_date:
            # Stripe accepts one of the two.
            params |= {"cancel_at_period_end": False} if by_flag else {"cancel_at": ""}
            params["cancellation_details"] = {"comment": "", "feedback": ""}
        if collect:
            params["pause_collection"] = ""
        await self._update("continue_subscription", subscription_id, params, key)

    async def release_schedule(self, schedule_id: str, *, key: str) -> None:
        """Release the subscription of a schedule, which continues with its present prices; planned phases are dropped.

        https://docs.stripe.com/billing/subscriptions/subscription-schedules#release-a-schedule

        Raises:
            KeySpent, StripeRefused: as for ``cancel_duplicate``.
        """
        await self.calls.post(
            "release_schedule", f"/v1/subscription_schedules/{_quoted(schedule_id)}/release", {}, key=key
        )

    async def continue_after_schedule(self, schedule_id: str, *, key: str) -> None:
        """Let a subscription continue after the last phase of its schedule, instead of being cancelled then.

        Raises:
            KeySpent, StripeRefused: as for ``cancel_duplicate``.
        """
        path = f"/v1/subscription_schedules/{_quoted(schedule_id)}"
        await self.calls.post("continue_after_schedule", path, {"end_behavior": "release"}, key=key)

    async def _update(self, name: str, subscription_id: str, params: Json, key: str) -> None:
        await self.calls.post(name, f"/v1/subscriptions/{_quoted(subscription_id)}", params, key=key)

    async def _cancel(self, subscription_id: str, comment: str, key: str, *, prorate: bool = True) -> None:
        # Without a feedback, which marks the comments of persons.
        details = {"comment": comment, "feedback": ""}
        await self._delete(subscription_id, details, key, prorate=prorate, invoice_now=prorate)

    async def _delete(self, subscription_id: str, details: Json, key: str, *, prorate: bool, invoice_now: bool) -> None:
        params = {"prorate": prorate, "invoice_now": invoice_now, "cancellation_details": details}
        try:
            await self.calls.delete("cancel", f"/v1/subscriptions/{_quoted(subscription_id)}", params, key=key)
        except StripeRefused as refused:
            # Stripe's answer for an ended subscription, which the caller reads again anyway.
            if refused.code != RESOURCE_MISSING:
                raise


def _quoted(identifier: str) -> str:
    return quote(identifier, safe="")
