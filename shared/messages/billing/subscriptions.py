"""Subscriptions: queries, re-reads from Stripe, duplicates, and the events of a subscription's life."""

from typing import Literal, Self

from pydantic import model_validator

from shared.messages.billing.errors import (
    NoActiveSubscription,
    SubscriptionExpired,
    SubscriptionNotFound,
    TooManyPortalSessions,
)
from shared.messages.billing.stripe_events import StripeCommand, StripeReread
from shared.messages.message import Command, Event, Part, Query, Reply
from shared.messages.types import ClientId, Many, Moment, NonEmpty, UserId

CancelType = Literal["immediate", "period_end"]


class SubscriptionView(Reply):
    """The record of a subscription."""

    id: str
    """ID of the subscription."""
    user_id: str
    """ID of the user."""
    status: str
    """Stripe's status, for example ``past_due``."""
    active: bool
    """Whether the methods for clients report the subscription as active."""
    entitled: bool
    """Whether the user has access now. A checkout in progress (``incomplete``) and a paused collection are active
    without access."""
    will_renew: bool
    """Whether the subscription continues after its current period."""
    start_date: Moment
    """Start of the current period."""
    end_date: Moment
    """End of the current period, or of the subscription if it has ended."""
    cancel_at: Moment | None
    """When a cancellation takes effect, or took effect; null if it is not cancelled."""
    cancel_type: CancelType | None
    """``period_end`` if the cancellation takes effect at the end of a period, else ``immediate``; null if it is not
    cancelled."""
    cancelled_at: Moment | None
    """When the cancellation was requested; null if it is not cancelled."""
    overdue_since: Moment | None
    """When an unpaid invoice became overdue; null if all are paid."""
    grace_ends_at: Moment | None
    """End of the grace period for the unpaid invoice; null if all are paid."""
    collection_paused: str | None
    """Stripe's behavior while collection is paused: ``void``, ``keep_as_draft`` or ``mark_uncollectible``; null if it
    is not paused."""
    trial_id: str | None
    """ID of the trial that the subscription began with; null if none."""
    duplicate_of: str | None
    """ID of the subscription that was kept when this one was cancelled as its duplicate; null if it was not."""
    other_subscription_ids: Many[str]
    """IDs of the user's other subscriptions, ended ones included, oldest first."""
    stp_subscription_id: str
    """ID of the subscription in Stripe."""
    stp_customer_id: str
    """ID of the customer in Stripe."""
    stp_product_id: str
    """ID of the product in Stripe."""
    stp_created_at: Moment
    """When the subscription was created, according to Stripe."""
    read_at: Moment
    """When the record was last read from Stripe."""
    created_at: Moment
    """When the record was created."""
    updated_at: Moment
    """When the record last changed."""


class GetSubscription(
    Query, wire="billing.get-subscription", audited=True, reply=SubscriptionView, refuses=(SubscriptionNotFound,)
):
    """Get the record of a subscription. Needs ``subscription_id`` or ``user_id``; with both, ``user_id`` is ignored."""

    subscription_id: NonEmpty | None = None
    """ID of the subscription, in Nest or in Stripe."""
    user_id: NonEmpty | None = None
    """ID of the user: returns the active subscription, else the one created last."""

    @model_validator(mode="after")
    def _has_an_id(self) -> Self:
        if self.subscription_id is None and self.user_id is None:
            raise ValueError("subscription_id or user_id is needed")
        return self


class SubscriptionStatusView(Reply):
    """A user's active subscription."""

    status: str
    """Stripe's status: ``active``, ``trialing``, ``past_due`` or ``incomplete``."""
    billing_portal_url: str | None
    """Link to the customer portal, ``<issuer>/portal/…``. It works for an hour, for everyone who has it."""
    start_date: Moment
    """Start of the current period."""
    end_date: Moment | None
    """End of the current period."""
    cancel_at: Moment | None
    """When a cancellation takes effect; null if the subscription is not cancelled."""
    cancel_type: CancelType | None
    """``period_end`` if the cancellation takes effect at the end of a period, else ``immediate``; null if it is not
    cancelled."""
    cancelled_at: Moment | None
    """When the cancellation was requested; null if it is not cancelled."""


class GetSubscriptionStatus(
    Query, wire="billing.get-subscription-status", reply=SubscriptionStatusView, refuses=(NoActiveSubscription,)
):
    """Get the active subscription of a user."""

    user_id: UserId


RequiredAction = Literal["payment", "authentication", "payment_method"]
"""What a person has to do for a subscription to go on.

- ``payment``: pay the open invoice.
- ``authentication``: confirm the payment of the open invoice with the bank.
- ``payment_method``: add a payment method in the customer portal. This resumes a trial that ended without one; nothing
  that a person adds resumes a subscription that was paused by request.
"""


class SubscriptionStateView(Reply):
    """The state of a user's subscription."""

    status: str
    """Stripe's status (``active``, ``trialing``, ``past_due``, ``incomplete``, ``unpaid``, ``paused``), or ``none`` if
    the user has no subscription that has not ended."""
    entitled: bool
    """Whether the user has access now."""
    required_action: RequiredAction | None
    """What the user has to do: ``payment`` of the open invoice, ``authentication`` of its payment by the bank, both at
    ``payment_url``, or adding a ``payment_method`` at ``billing_portal_url``; null if nothing."""
    payment_url: str | None
    """Link to the open invoice, ``<issuer>/invoice/…``. It works for an hour, for everyone who has it. Null if nothing
    is to be paid."""
    billing_portal_url: str | None
    """Link to the customer portal, ``<issuer>/portal/…``. It works for an hour, for everyone who has it. Null if the
    user was never a customer."""
    start_date: Moment | None
    """Start of the current period."""
    end_date: Moment | None
    """End of the current period."""
    grace_ends_at: Moment | None
    """End of the grace period for the unpaid invoice; null if all are paid."""
    cancel_at: Moment | None
    """When a cancellation takes effect; null if the subscription is not cancelled."""
    cancel_type: CancelType | None
    """``period_end`` if the cancellation takes effect at the end of a period, else ``immediate``; null if it is not
    cancelled."""
    cancelled_at: Moment | None
    """When the cancellation was requested; null if it is not cancelled."""


class GetSubscriptionState(
    Query, wire="billing.get-subscription-state", reply=SubscriptionStateView, reply_sealed=True
):
    """Get the state of a user's subscription.

    It is the active one, else one that has not ended; a user without one has the status ``none``.

    The reply is sealed because by a setting it has the URL of a session of Stripe's customer portal.
    """

    user_id: UserId


class PortalSessionView(Reply):
    """A session of Stripe's customer portal."""

    url: str
    """Stripe's short-lived page."""


class CreatePortalSession(
    Query,
    wire="billing.create-portal-session",
    reply=PortalSessionView,
    reply_sealed=True,
    refuses=(SubscriptionNotFound, TooManyPortalSessions),
):
    """Create a session of Stripe's customer portal, for the customer of the user's active or latest subscription.

    A query, because it changes nothing that is recorded, and its reply is stored nowhere.
    """

    user_id: UserId
    client_id: ClientId | None = None
    """The client that showed the link; None for a back end."""


class GetSubscriptionHeartbeat(Query, wire="billing.get-subscription-heartbeat", refuses=(SubscriptionExpired,)):
    """Check whether a user has an active subscription."""

    user_id: UserId


class FollowSubscription(StripeReread, wire="billing.follow-subscription"):
    """Re-read a subscription from Stripe and update its record."""

    subscription_id: str
    """Stripe's ID, ``sub_…``."""
    awaited: int = 0
    """Number of times that the command was rescheduled because the subscription's user is not known yet."""


class FindSubscriptions(StripeReread, wire="billing.find-subscriptions"):
    """Re-read the subscription of a schedule, or resume the paused subscriptions of a customer."""

    object: Literal["subscription_schedule", "customer"]
    object_id: str
    """Stripe's ID."""


class ReconcileUserView(Reply):
    """Result of ``reconcile_user``."""

    subscriptions: int
    """Number of the user's subscriptions that are read from Stripe now, ended ones included."""


class ReconcileUser(Command, wire="billing.reconcile-user", audited=True, reply=ReconcileUserView):
    """Read a user's subscriptions from Stripe, and repair their records.

    The readings begin after the response, and take some seconds.
    """

    user_id: UserId


class ResumeSubscription(StripeCommand, wire="billing.resume-subscription"):
    """Resume a subscription that is paused because its trial ended without a payment method, once it has one."""

    subscription_id: str
    """ID of the subscription's record in billing."""


class FollowCustomer(StripeCommand, wire="billing.follow-customer"):
    """Re-read all subscriptions of a customer, ended ones included."""

    customer_id: str
    """Stripe's ID, ``cus_…``."""


class CancelDuplicateSubscription(StripeCommand, wire="billing.cancel-duplicate-subscription"):
    """Cancel a user's second live subscription in Stripe, prorated and invoiced immediately."""

    subscription_id: str
    """ID of the duplicate's record in billing."""
    kept_subscription_id: str
    """ID of the other subscription's record in billing."""


class RefundDuplicateSubscription(StripeCommand, wire="billing.refund-duplicate-subscription"):
    """Refund the payments of a cancelled duplicate subscription."""

    subscription_id: str
    """ID of the duplicate's record in billing."""
    awaited: int = 0
    """Number of times that the command was rescheduled because a payment was in progress. A bank debit takes days."""


class CheckSubscriptionAccess(StripeCommand, wire="billing.check-subscription-access"):
    """Re-read a subscription at the time at which its access ends, and announce the end.

    Scheduled with every reading that changes this time, because Stripe sends no event about the end of a grace period.
    """

    subscription_id: str
    """ID of the subscription's record in billing."""


class CheckSubscriptionRenewal(StripeCommand, wire="billing.check-subscription-renewal"):
    """Re-read a subscription some days before its renewal, and order the mails that are due then.

    Scheduled with every reading that changes this time.
    """

    subscription_id: str
    """ID of the subscription's record in billing."""
    due_at: Moment
    """When the mails are due."""


class CancelSubscriptionWithoutCoupon(StripeCommand, wire="billing.cancel-subscription-without-coupon"):
    """Cancel a subscription that lacks the required coupon in Stripe, prorated and invoiced immediately."""

    subscription_id: str
    """ID of the subscription's record in billing."""


class SubscriptionEvent(Event):
    """Fields shared by the events of a subscription."""

    user_id: str
    subscription_id: str
    """ID of the subscription's record in billing."""
    happened_at: Moment | None = None
    """When it started, was cancelled or ended, according to Stripe; None for changes of which Stripe has no time."""


class SubscriptionStarted(SubscriptionEvent, wire="billing.subscription-started"):
    """A subscription was recorded for the first time."""

    status: str
    entitled: bool | None = None
    """Whether the user has access now. SubscriptionLapsed announces access that ends by time alone."""


class SubscriptionChanged(SubscriptionEvent, wire="billing.subscription-changed"):
    """A subscription changed."""

    status: str
    changed: Many[str]
    """Names of the changed fields, as stored in MongoDB."""
    entitled: bool | None = None
    """See SubscriptionStarted."""
    status_before: str | None = None
    """Status before the change; None in an event of an earlier release."""


class SubscriptionEnded(SubscriptionEvent, wire="billing.subscription-ended"):
    """A subscription ended for good. Published instead of SubscriptionChanged."""

    status: str
    changed: Many[str] = ()
    """See SubscriptionChanged."""
    status_before: str | None = None
    """See SubscriptionChanged; None too if it was not recorded before."""
    reason: str | None = None
    """``duplicate``, ``coupon_missing``, ``trial_undone`` or ``trial_converted`` if billing ended it, else Stripe's
    reason: ``cancellation_requested``, ``payment_failed``, ``payment_disputed``; None if Stripe gives none. A trial is
    converted when its user subscribes."""


class SubscriptionLapsed(SubscriptionEvent, wire="billing.subscription-lapsed"):
    """Access ended by time alone: the status in Stripe is unchanged."""

    status: str
    reason: Literal["grace_period_ended", "period_ended"]
    """``period_ended``: the period is over, and nothing is known of a renewal."""


class SubscriptionMoved(SubscriptionEvent, wire="billing.subscription-moved"):
    """A subscription was moved to another user by metadata in Stripe. ``user_id`` is the former user.

    SubscriptionChanged follows for the new user.
    """

    new_user_id: str
    entitled: bool
    """Whether the former user still has access, with another subscription."""


class PlanItem(Part):
    """A price of a subscription."""

    product_id: str
    """ID of the product in Stripe."""
    price_id: str
    """ID of the price in Stripe."""
    quantity: int | None
    """Number of units, such as seats; null for a metered price."""


class PlanChanged(SubscriptionEvent, wire="billing.plan-changed"):
    """The prices or quantities of a subscription changed. Published beside SubscriptionChanged."""

    before: Many[PlanItem]
    after: Many[PlanItem]
    entitled: bool
    """See SubscriptionStarted."""


class CancellationPlanned(SubscriptionEvent, wire="billing.cancellation-planned"):
    """A subscription was cancelled and ends later, or at another time than planned before.

    Published beside SubscriptionChanged; SubscriptionEnded follows at the end.
    """

    ends_at: Moment


class CancellationWithdrawn(SubscriptionEvent, wire="billing.cancellation-withdrawn"):
    """A planned cancellation was withdrawn. Published beside SubscriptionChanged."""

    renews_at: Moment
    """End of the current period."""


class SubscriptionResumed(SubscriptionEvent, wire="billing.subscription-resumed"):
    """A paused subscription, or the paused collection of its payments, was resumed.

    Published beside SubscriptionChanged.
    """

    status: str
    entitled: bool
    """See SubscriptionStarted."""


class DuplicateSubscriptionFound(SubscriptionEvent, wire="billing.duplicate-subscription-found"):
    """A second live subscription of one user was found and kept.

    Cancelling duplicates is disabled, or Stripe refuses it.
    """

    kept_subscription_id: str
    """ID of the subscription that would have been kept."""


class DuplicateSubscriptionCancelled(SubscriptionEvent, wire="billing.duplicate-subscription-cancelled"):
    """A second live subscription of one user was cancelled in Stripe."""

    kept_subscription_id: str
    reason: str = "duplicate"
