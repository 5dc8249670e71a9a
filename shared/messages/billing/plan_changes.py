"""Plan changes that a person orders: another price or quantity, the cancellation of a subscription, its withdrawal."""

from typing import Annotated, Literal

from pydantic import Field

from shared.messages.billing.errors import (
    ChangeRefusedByStripe,
    CurrencyNotOffered,
    ImmediateCancellationNotAllowed,
    PreviewOutdated,
    PriceInactive,
    PriceNotFound,
    PriceNotSold,
    QuantityNotAllowed,
    SubscriptionExcluded,
    SubscriptionHasEnded,
    SubscriptionNotChangeable,
    SubscriptionNotFound,
)
from shared.messages.billing.plans import Quantity
from shared.messages.billing.subscriptions import CancelType, PlanItem, RequiredAction
from shared.messages.message import Command, Part, Query, Reply
from shared.messages.types import Many, MaxPlain, Moment, NonEmpty, Sealed, StripeId, UserId

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
PreviewToken = Annotated[str, Field(min_length=1, max_length=2_048)]


class PlannedItem(Part):
    """A price of a subscription in the future."""

    price_id: str
    """ID of the price in Stripe."""
    quantity: int | None
    """Number of units, such as seats; null for a metered price."""


class PlannedChange(Part):
    """Other prices or quantities from a later time on."""

    at: Moment
    """When the change takes effect."""
    items: Many[PlannedItem]
    """All prices from then on."""


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
    planned_change: PlannedChange | None = None
    """Prices and quantities that are planned for later; null if none are."""


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


PLAN_REFUSALS = (
    SubscriptionNotFound,
    SubscriptionHasEnded,
    SubscriptionNotChangeable,
    SubscriptionExcluded,
    PriceNotFound,
    PriceInactive,
    PriceNotSold,
    CurrencyNotOffered,
    QuantityNotAllowed,
    ChangeRefusedByStripe,
)


class PlanChangeView(Reply):
    """What a change of a subscription costs, and when it takes effect. Amounts are in the currency's minor unit."""

    subscription_id: str
    """ID of the subscription."""
    effect: Literal["now", "period_end", "none"]
    """When the change takes effect: a downgrade at the end of the period by default, everything else now. ``none`` if
    the subscription is so already."""
    effective_at: Moment
    """When the change takes effect."""
    currency: str
    """Currency of the amounts, an ISO 4217 code in lower case."""
    decimals: int
    """Number of decimals of the amounts: 2 for USD, so that 1000 is 10.00; 0 for JPY."""
    due_now: int
    """What the person pays at once, after credits and with taxes; 0 or more."""
    credit: int
    """Credit for the unused time of what is replaced. It is deducted from ``due_now``, and what remains of it from the
    next invoices."""
    next_invoice_at: Moment | None
    """When the next invoice after the change is made; null if the subscription does not renew."""
    next_invoice_amount: int | None
    """Total of that invoice, before credits on the customer's balance."""
    preview: str
    """Token for ``change_plan``, which then costs what is shown here or is refused. Works until ``expires_at``."""
    expires_at: Moment
    """Expiry of the token."""


class PreviewPlanChange(Query, wire="billing.preview-plan-change", reply=PlanChangeView, refuses=PLAN_REFUSALS):
    """Get what another price or quantity of a subscription costs. Changes nothing."""

    user_id: UserId
    subscription_id: NonEmpty | None = None
    """ID of the subscription, in Nest or in Stripe; by default the one of ``get_subscription_status``."""
    price_id: StripeId
    """ID of the new price in Stripe, as ``list_plans`` returns it; the present one to change the quantity only."""
    quantity: Quantity | None = None
    """Number of units, such as seats; by default as before. Left out for a metered price."""
    replaces: StripeId | None = None
    """ID of the price that is replaced, for a subscription with several; by default the only one."""


class ChangePlan(
    PlanOrder,
    wire="billing.change-plan",
    audited=True,
    audited_for_users=True,
    reply=PlanOrderView,
    refuses=(*PLAN_REFUSALS, PreviewOutdated),
):
    """Change the price or quantity of a subscription.

    A downgrade (a shorter interval, or a lower amount for the same interval) takes effect at the end of the period by
    default, everything else now. If the bank declines the payment of the difference, or wants it confirmed, the
    outcome is ``action_required``, and the change takes effect when the invoice is paid, within 23 hours. A repeat
    changes nothing.
    """

    price_id: StripeId
    """As in ``preview_plan_change``."""
    quantity: Quantity | None = None
    """As in ``preview_plan_change``."""
    replaces: StripeId | None = None
    """As in ``preview_plan_change``."""
    preview: PreviewToken | None = None
    """``preview`` of ``preview_plan_change`` with the same fields."""
