"""What does Stripe say of a customer or a subscription, in our words?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.messages.billing.subscriptions import CancelType

NEVER_LIVED: Final = frozenset({"incomplete", "incomplete_expired"})
"""Not paid even once; Stripe gives ``canceled`` only to what was paid for or tried."""

EARLIEST_NOTICE: Final = timedelta(days=3, hours=12)
LATEST_NOTICE: Final = timedelta(days=2, hours=12)
"""How long before the end of a trial the notice is made that is worth a mail: three days, and what its making lags."""
SETTLED_IN: Final = timedelta(hours=12)
"""Whose trial is shorter than three days has just read in the welcome mail when it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeCustomer:
    """A customer as Stripe has it now.

    Attributes:
        id: ``cus_…``.
        email: None where there is none, and for a deleted one.
        user_id: of its metadata.
        deleted: it counts as absent.
    """

    id: str
    email: str | None
    user_id: str | None
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeSubscription:
    """A subscription as Stripe has it now.

    Attributes:
        id: ``sub_…``.
        customer: who pays.
        status: Stripe's word.
        product_id: of its first item.
        user_id: of its metadata.
        trial_id: our trial's id, of its metadata.
        created: when it was made.
        period_start: the earliest of its items.
        period_end: the latest of its items.
        cancel_at: when it will end, if that was decided.
        cancel_at_period_end: that it will end with its period.
        canceled_at: when the end was asked for.
        ended_at: when it ended.
        trial_start: when its trial began, if it ever had one.
        trial_end: when its trial ends or ended.
        coupons: the coupons on it.
        duplicate_of: our id of the subscription that was kept, if we cancelled this one as its duplicate.
        livemode: whether it is about real money.
        overdue_since: since when it has not been paid, while it is ``past_due``.
        collection_paused: what becomes of its invoices while its payments are paused: ``void``, ``keep_as_draft``,
            ``mark_uncollectible``; None while they aren't. Its status says nothing of it
            (https://docs.stripe.com/billing/subscriptions/pause-payment).
        end_reason: why it was ended: ``duplicate`` and ``coupon_missing`` by us, else Stripe's word.
    """

    id: str
    customer: StripeCustomer
    status: str
    product_id: str
    user_id: str | None
    trial_id: str | None
    created: datetime
    period_start: datetime
    period_end: datetime
    cancel_at: datetime | None
    cancel_at_period_end: bool
    canceled_at: datetime | None
    ended_at: datetime | None
    trial_start: datetime | None
    trial_end: datetime | None
    coupons: frozenset[str]
    duplicate_of: str | None
    livemode: bool
    overdue_since: datetime | None = None
    collection_paused: str | None = None
    end_reason: str | None = None

    @property
    def lived(self) -> bool:
        """Whether it was ever paid for or tried."""
        return self.status not in NEVER_LIVED

    @property
    def cancel_type(self) -> CancelType | None:
        """How it ends, or ended; the customer portal plans an end either by the flag or by a date."""
        if self.cancel_at_period_end or self.cancel_at is not None:
            return "period_end"
        return "immediate" if self.canceled_at is not None else None

    @property
    def ends_for_good_at(self) -> datetime | None:
        """When a cancellation ends it, or has ended it."""
        if self.cancel_at is not None:
            return self.cancel_at
        if self.cancel_at_period_end:
            return self.period_end
        return self.ended_at if self.canceled_at is not None else None

    def heralds_end(self, told: datetime, *, at: datetime) -> bool:
        """Whether a notice that its trial will end, made at ``told``, was made for the end that lies ahead.

        Stripe gives notice three days before; but also at once when a trial is made, cut or extended to less than
        that, when nobody is to read that it ends "soon": and one may arrive after the trial has been extended or is
        over (https://docs.stripe.com/billing/subscriptions/trials).
        """
        if self.status != "trialing" or self.trial_end is None or self.trial_start is None:
            return False
        in_time = EARLIEST_NOTICE >= self.trial_end - told >= LATEST_NOTICE
        return self.trial_end > at and in_time and told - self.trial_start >= SETTLED_IN

    def lacks(self, coupon: str | None) -> bool:
        """Whether it should not be there, where every subscription needs a coupon; trials need none."""
        return coupon is not None and self.trial_start is None and coupon not in self.coupons
