"""What billing is asked about subscriptions by operators, and what it orders of itself about duplicates."""

from typing import Literal, Self

from pydantic import model_validator

from shared.messages.billing.errors import NoActiveSubscription, SubscriptionExpired, SubscriptionNotFound
from shared.messages.billing.stripe_events import StripeCommand, StripeReread
from shared.messages.message import Event, Moment, NonEmpty, Query, Reply

CancelType = Literal["immediate", "period_end"]


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


class GetSubscription(
    Query, wire="billing.get-subscription", audited=True, reply=SubscriptionView, refuses=(SubscriptionNotFound,)
):
    """The record of one subscription, for operators. By its id or by its user; the id goes first."""

    subscription_id: NonEmpty | None = None
    """Ours or Stripe's."""
    user_id: NonEmpty | None = None
    """Then the one that clients are told about, or, if none is active, the one made last."""

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.subscription_id is None and self.user_id is None:
            raise ValueError("subscription_id or user_id is needed")
        return self


class DuplicateSubscriptionFound(Event, wire="billing.duplicate-subscription-found"):
    """A second live subscription of one user was found, and left alone: cancelling is switched off."""

    user_id: str
    subscription_id: str
    """Ours."""
    kept_subscription_id: str
    """The one that would have been kept."""


class RefundDuplicateSubscription(StripeCommand, wire="billing.refund-duplicate-subscription"):
    """Give back what was paid on a duplicate that was cancelled."""

    subscription_id: str
    """Ours."""
    awaited: int = 0
    """How often a payment was still under way; a bank's debit takes days."""


class FollowSubscription(StripeReread, wire="billing.follow-subscription"):
    """Read a subscription from Stripe and bring our record to what it says."""

    subscription_id: str
    """Stripe's id, ``sub_…``."""
    awaited: int = 0
    """How often its user was awaited already."""


class FollowCustomer(StripeCommand, wire="billing.follow-customer"):
    """Follow all subscriptions of a customer, ended ones too."""

    customer_id: str
    """Stripe's id, ``cus_…``."""


class SubscriptionStatusView(Reply):
    """A user's active subscription."""

    status: str
    """Stripe's word."""
    billing_portal_url: str | None
    """A short-lived link; null when Stripe could not be reached within its budget."""
    start_date: Moment
    end_date: Moment | None
    cancel_at: Moment | None
    cancel_type: CancelType | None
    cancelled_at: Moment | None


class GetSubscriptionStatus(
    Query, wire="billing.get-subscription-status", reply=SubscriptionStatusView, refuses=(NoActiveSubscription,)
):
    """What a user has subscribed to."""

    user_id: NonEmpty


class GetSubscriptionHeartbeat(Query, wire="billing.get-subscription-heartbeat", refuses=(SubscriptionExpired,)):
    """Whether a subscription is active."""

    user_id: NonEmpty


class SubscriptionStarted(Event, wire="billing.subscription-started"):
    """A subscription was seen for the first time."""

    user_id: str
    subscription_id: str
    status: str
    entitled: bool | None = None
    """Whether it entitles its user now; time alone may end that, without an event."""


class SubscriptionChanged(Event, wire="billing.subscription-changed"):
    """A subscription is no longer what it was."""

    user_id: str
    subscription_id: str
    status: str
    changed: tuple[str, ...]
    """Names of the fields that changed, as at rest."""
    entitled: bool | None = None
    """As in SubscriptionStarted."""


class SubscriptionEnded(Event, wire="billing.subscription-ended"):
    """A subscription came to its end for good."""

    user_id: str
    subscription_id: str
    status: str
    changed: tuple[str, ...] = ()
    """As in SubscriptionChanged, which is not announced besides."""
    reason: str | None = None
    """``duplicate`` and ``coupon_missing`` when billing ended it, else Stripe's word: ``cancellation_requested``,
    ``payment_failed``, ``payment_disputed``; None where it has none."""


class DuplicateSubscriptionCancelled(Event, wire="billing.duplicate-subscription-cancelled"):
    """A second live subscription of one user was cancelled in Stripe."""

    user_id: str
    subscription_id: str
    kept_subscription_id: str
    reason: str = "duplicate"


class CancelDuplicateSubscription(StripeCommand, wire="billing.cancel-duplicate-subscription"):
    """Cancel a user's second live subscription in Stripe: prorated, invoiced now."""

    subscription_id: str
    """Ours."""
    kept_subscription_id: str
    """Ours."""


class CancelSubscriptionWithoutCoupon(StripeCommand, wire="billing.cancel-subscription-without-coupon"):
    """Cancel a subscription in Stripe, where every one needs a coupon: prorated, invoiced now."""

    subscription_id: str
    """Ours."""
