"""Plan changes that a person orders: the cancellation of a subscription, and its withdrawal."""

from typing import Annotated, Literal

from shared.messages.billing.errors import (
    ChangeRefusedByStripe,
    ImmediateCancellationNotAllowed,
    SubscriptionExcluded,
    SubscriptionHasEnded,
    SubscriptionNotFound,
)
from shared.messages.billing.subscriptions import CancelType, PlanItem, RequiredAction
from shared.messages.message import Command, Reply
from shared.messages.types import Many, MaxPlain, Moment, NonEmpty, Sealed, UserId

Feedback = Literal[
    "customer_service",
    "low_quality",
    "missing_features",
    "other",
    "switched_service",
    "too_complex",
    "too_expensive",
    "unused",
]
"""Stripe's values of ``cancellation_details.feedback`` (https://docs.stripe.com/api/subscriptions/cancel)."""
CancellationComment = Annotated[Sealed, MaxPlain(1_000)]
OrderOutcome = Literal["done", "planned", "unchanged", "action_required"]


class PlanOrderView(Reply):
    """A subscription after an order, as Stripe has it now."""

    outcome: OrderOutcome
    """``done``: the change is in effect; ``planned``: it takes effect later; ``unchanged``: the subscription was so
    already; ``action_required``: the person has to do what ``required_action`` says."""
    subscription_id: str
    """ID of the subscription."""
    status: str
    """Stripe's status."""
    entitled: bool
    """Whether the user has access now."""
    items: Many[PlanItem]
    """The prices that the subscription consists of now."""
    start_date: Moment
    """Start of the current period."""
    end_date: Moment
    """End of the current period, or of the subscription if it has ended."""
    will_renew: bool
    """Whether the subscription continues after its current period."""
    access_ends_at: Moment | None
    """The last day of access: when it ends, or ended; null if the subscription renews."""
    cancel_at: Moment | None
    """When a cancellation takes effect, or took effect; null if the subscription is not cancelled."""
    cancel_type: CancelType | None
    """``period_end`` if the cancellation takes effect at the end of a period, else ``immediate``; null if it is not
    cancelled."""
    cancelled_at: Moment | None
    """When the cancellation was requested; null if the subscription is not cancelled."""
    required_action: RequiredAction | None
    """What the user has to do: ``payment`` of the open invoice, ``authentication`` of its payment by the bank, both at
    ``payment_url``, or adding a ``payment_method`` at ``billing_portal_url``; null if nothing."""
    payment_url: str | None
    """Link to the open invoice, ``<issuer>/invoice/…``. It works for an hour, for everyone who has it. Null if nothing
    is to be paid."""
    billing_portal_url: str
    """Link to the customer portal, ``<issuer>/portal/…``. It works for an hour, for everyone who has it."""


class PlanOrder(Command):
    """Fields shared by the orders about a subscription of a user."""

    user_id: UserId
    subscription_id: NonEmpty | None = None
    """ID of the subscription, in Nest or in Stripe; by default the one of ``get_subscription_status``."""


class CancelSubscription(
    PlanOrder,
    wire="billing.cancel-subscription",
    audited=True,
    audited_for_users=True,
    reply=PlanOrderView,
    refuses=(SubscriptionNotFound, ImmediateCancellationNotAllowed, ChangeRefusedByStripe),
):
    """Cancel a subscription at the end of its period, or of its trial.

    One that gives no access and is not paid (``incomplete``, ``unpaid``, ``paused``) is cancelled at once. A repeat
    changes nothing.
    """

    at: Literal["period_end", "now"] = "period_end"
    """``now`` ends access at once. The setting `NEST_STRIPE_CANCEL_NOW` says whether that is allowed, and whether the
    unused time is credited to the customer's balance. Nothing is paid back."""
    feedback: Feedback | None = None
    """Why the person cancels, for Stripe."""
    comment: CancellationComment | None = None
    """What the person says about it, for Stripe: at most 1,000 characters."""


class WithdrawCancellation(
    PlanOrder,
    wire="billing.withdraw-cancellation",
    audited=True,
    audited_for_users=True,
    audited_as="resume_subscription",
    reply=PlanOrderView,
    refuses=(SubscriptionNotFound, SubscriptionHasEnded, SubscriptionExcluded, ChangeRefusedByStripe),
):
    """Withdraw a planned cancellation, or resume a paused subscription.

    Resuming begins a new period, which is charged. A repeat changes nothing.
    """
