"""Checkouts: pages of Stripe on which a user subscribes or pays once."""

from typing import Literal

from shared.messages.auth.errors import UserNotFound
from shared.messages.billing.errors import (
    CheckoutRefusedByStripe,
    MixedCurrencies,
    MixedIntervals,
    PriceInactive,
    PriceNotFound,
    PriceNotSold,
    QuantityNotAllowed,
    TooManyCheckouts,
)
from shared.messages.billing.plans import Quantity
from shared.messages.billing.stripe_events import StripeReread
from shared.messages.message import Command, Event, Part, Reply
from shared.messages.types import Many, Moment, PreferredLocale, StripeId

MAX_ITEMS = 20
"""Stripe's bound on the recurring prices of a Checkout Session."""
CHECKOUT_REFUSALS = (
    UserNotFound,
    PriceNotFound,
    PriceInactive,
    PriceNotSold,
    MixedIntervals,
    MixedCurrencies,
    QuantityNotAllowed,
    TooManyCheckouts,
    CheckoutRefusedByStripe,
)


class OrderedItem(Part):
    """A price to check out."""

    price_id: StripeId
    """ID of the price in Stripe, as ``list_plans`` returns it."""
    quantity: Quantity | None = None
    """Number of units, such as seats, up to 999,999; 1 if left out. A metered price has none, because its usage
    counts."""


class CheckoutView(Reply):
    """A page of Stripe for a user."""

    kind: Literal["checkout", "portal"]
    """``checkout``: a page to subscribe or pay. ``portal``: a page of the customer portal to change the subscription
    that the user has already, since it excludes another one."""
    url: str
    """The page. It works for everyone who has it, so open it at once and store it nowhere."""
    expires_at: Moment | None
    """When a checkout expires; null for the customer portal, whose page expires within minutes."""


class CheckoutOrder(Command):
    """Fields shared by the commands that make a checkout."""

    user_id: str
    client_id: str
    email: str | None
    """Address for a new customer in Stripe; None for a user who has no verified one."""
    items: Many[OrderedItem]
    success_url: str
    cancel_url: str
    trial: bool = True
    """Whether a trial is wanted."""
    beak_id: str | None = None
    fingerprint: str | None = None
    locale: PreferredLocale = None


class OpenCheckout(
    CheckoutOrder,
    wire="billing.open-checkout",
    personal=True,
    reply=CheckoutView,
    reply_sealed=True,
    refuses=CHECKOUT_REFUSALS,
):
    """Record the checkout of a user, then send FinishCheckout, whose handler replies. Sent by auth."""


class FinishCheckout(
    CheckoutOrder,
    wire="billing.finish-checkout",
    personal=True,
    reply=CheckoutView,
    reply_sealed=True,
    refuses=CHECKOUT_REFUSALS,
):
    """Create the Checkout Session of a recorded checkout in Stripe, or return the open one."""

    checkout_id: str


class FollowCheckout(StripeReread, wire="billing.follow-checkout"):
    """Re-read a Checkout Session from Stripe, and record what it led to."""

    session_id: str
    """Stripe's ID, ``cs_…``."""


class CheckoutCompleted(Event, wire="billing.checkout-completed"):
    """A user completed a checkout. With a bank debit the money may arrive days later."""

    user_id: str
    checkout_id: str
    client_id: str
    """The client that the user came from."""
    mode: Literal["subscription", "payment"]
