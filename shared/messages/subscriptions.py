"""What billing is asked about subscriptions by operators, and what it orders of itself about duplicates."""

from typing import Self

from pydantic import model_validator

from shared.messages.auth import NonEmpty
from shared.messages.billing import Attempted, CancelType
from shared.messages.message import Event, Moment, Query, Reply


class GetSubscription(Query, wire="billing.get-subscription", audited=True):
    """The record of one subscription, for operators. Reply: SubscriptionView. Refused: ``not_found``.

    By its id or by its user; the id goes first.
    """

    subscription_id: NonEmpty | None = None
    """Ours or Stripe's."""
    user_id: NonEmpty | None = None
    """Then the one that clients are told about, or, if none is active, the one made last."""

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.subscription_id is None and self.user_id is None:
            raise ValueError("subscription_id or user_id is needed")
        return self


class SubscriptionView(Reply):
    """All that billing holds of a subscription."""

    id: str
    user_id: str
    status: str
    """Stripe's word."""
    active: bool
    """Whether clients are told that it is active."""
    entitled: bool
    """Whether it entitles its user now: a checkout in progress and a subscription on hold are active and do not."""
    will_renew: bool
    """Whether it goes on after its period: no end is planned, and it is not over."""
    start_date: Moment
    end_date: Moment
    cancel_at: Moment | None
    cancel_type: CancelType | None
    cancelled_at: Moment | None
    overdue_since: Moment | None
    """Since when it has not been paid; None while it is paid."""
    grace_ends_at: Moment | None
    """Until when it counts although it is not paid."""
    collection_paused: str | None
    """``void``, ``keep_as_draft`` or ``mark_uncollectible``, while its payments are paused."""
    trial_id: str | None
    """Ours."""
    duplicate_of: str | None
    """Ours: the subscription that was kept when this one was cancelled."""
    other_subscription_ids: tuple[str, ...]
    """Ours: all others that the user has or had, oldest first."""
    stp_subscription_id: str
    stp_customer_id: str
    stp_product_id: str
    stp_created_at: Moment
    read_at: Moment
    """When the reading of Stripe began that this is the result of."""
    created_at: Moment
    updated_at: Moment


class DuplicateSubscriptionFound(Event, wire="billing.duplicate-subscription-found"):
    """A second live subscription of one user was found, and left alone: cancelling is switched off."""

    user_id: str
    subscription_id: str
    """Ours."""
    kept_subscription_id: str
    """The one that would have been kept."""


class RefundDuplicateSubscription(Attempted, wire="billing.refund-duplicate-subscription"):
    """Give back what was paid on a duplicate that was cancelled. No reply body."""

    subscription_id: str
    """Ours."""
    awaited: int = 0
    """How often a payment was still under way; a bank's debit takes days."""
