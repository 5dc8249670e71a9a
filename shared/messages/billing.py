"""What billing is ordered and asked, and what it announces: trials and subscriptions."""

from typing import Literal

from shared.messages.auth import NonEmpty
from shared.messages.message import Command, Event, Moment, Query, Reply

CancelType = Literal["immediate", "period_end"]


class StartTrial(Command, wire="billing.start-trial"):
    """Reserve the one trial of this user and device; goes on with FinishTrial. No reply body.

    Refused: ``already_subscribed``, ``trial_already_used``; by FinishTrial ``unavailable``, ``invalid_email``.
    """

    user_id: str
    email: str
    client_id: str
    redirect_uri: str
    state: str
    code_challenge: str
    platform: Literal["mac", "windows", "linux"] | None = None
    beak_id: str | None = None
    fingerprint: str | None = None


class FinishTrial(Command, wire="billing.finish-trial"):
    """Make the trial's customer and subscription in Stripe, record them, order the magic link. No reply body."""

    trial_id: str
    email: str
    client_id: str
    redirect_uri: str
    state: str
    code_challenge: str
    platform: Literal["mac", "windows", "linux"] | None = None


class FollowSubscription(Command, wire="billing.follow-subscription"):
    """Read a subscription from Stripe and bring our record to what it says. No reply body."""

    subscription_id: str
    """Stripe's id, ``sub_…``."""
    attempt: int = 1
    """Counts from 1; grows while Stripe can't be asked."""


class FollowCustomer(Command, wire="billing.follow-customer"):
    """Follow all subscriptions of a customer, ended ones too. No reply body."""

    customer_id: str
    """Stripe's id, ``cus_…``."""
    attempt: int = 1
    """As in FollowSubscription."""


class GetSubscriptionStatus(Query, wire="billing.get-subscription-status"):
    """Reply: SubscriptionStatusView. Refused: ``no_active_subscription``."""

    user_id: NonEmpty


class GetSubscriptionHeartbeat(Query, wire="billing.get-subscription-heartbeat"):
    """No reply body while a subscription is active. Refused: ``subscription_expired``."""

    user_id: NonEmpty


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


class TrialStarted(Event, wire="billing.trial-started"):
    """A trial was started for a user, in Stripe and here."""

    user_id: str
    trial_id: str
    subscription_id: str
    """Ours."""
    ends_at: Moment


class SubscriptionStarted(Event, wire="billing.subscription-started"):
    """A subscription was seen for the first time."""

    user_id: str
    subscription_id: str
    status: str


class SubscriptionChanged(Event, wire="billing.subscription-changed"):
    """A subscription is no longer what it was."""

    user_id: str
    subscription_id: str
    status: str
    changed: tuple[str, ...]
    """Names of the fields that changed, as at rest."""


class SubscriptionEnded(Event, wire="billing.subscription-ended"):
    """A subscription came to its end for good."""

    user_id: str
    subscription_id: str
    status: str
    changed: tuple[str, ...] = ()
    """As in SubscriptionChanged, which is not announced besides."""


class DuplicateSubscriptionCancelled(Event, wire="billing.duplicate-subscription-cancelled"):
    """A second live subscription of one user was cancelled in Stripe."""

    user_id: str
    subscription_id: str
    kept_subscription_id: str


class CancelDuplicateSubscription(Command, wire="billing.cancel-duplicate-subscription"):
    """Cancel a user's second live subscription in Stripe: prorated, invoiced now. No reply body."""

    subscription_id: str
    """Ours."""
    kept_subscription_id: str
    """Ours."""
    attempt: int = 1
    """As in FollowSubscription."""


class CancelSubscriptionWithoutCoupon(Command, wire="billing.cancel-subscription-without-coupon"):
    """Cancel a subscription in Stripe, where every one needs a coupon: prorated, invoiced now. No reply body."""

    subscription_id: str
    """Ours."""
    attempt: int = 1
    """As in FollowSubscription."""
