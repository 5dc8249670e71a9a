"""Changes of subscriptions in Stripe: trials, cancellations, later payments."""

from __future__ import annotations

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
)

TRIAL_DAYS: Final = 14


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
        await self.calls.post("extend", f"/v1/subscriptions/{_quoted(subscription_id)}", params, key=key)

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

    async def _cancel(self, subscription_id: str, comment: str, key: str, *, prorate: bool = True) -> None:
        params = {"prorate": prorate, "invoice_now": prorate, "cancellation_details": {"comment": comment}}
        try:
            await self.calls.delete("cancel", f"/v1/subscriptions/{_quoted(subscription_id)}", params, key=key)
        except StripeRefused as refused:
            # Stripe's answer for an ended subscription, which the caller reads again anyway.
            if refused.code != RESOURCE_MISSING:
                raise


def _quoted(identifier: str) -> str:
    return quote(identifier, safe="")
