"""What does Stripe say of a customer or a subscription, in our words?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.messages.billing import CancelType

NEVER_LIVED: Final = frozenset({"incomplete", "incomplete_expired"})
"""Not paid even once; Stripe gives ``canceled`` only to what was paid for or tried."""


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

    def lacks(self, coupon: str | None) -> bool:
        """Whether it should not be there, where every subscription needs a coupon; trials need none."""
        return coupon is not None and self.trial_start is None and coupon not in self.coupons
