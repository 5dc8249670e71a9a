"""The state of a customer: everything that an app shows about a user's plans, in one view."""

from shared.messages.billing.subscriptions import CancelType, RequiredAction
from shared.messages.message import Part, Query, Reply
from shared.messages.types import Many, Moment, UserId


class PlanItemState(Part):
    """A price of a user's plan. Fields from the catalog are null while Nest has not read the price or product."""

    product_id: str
    """ID of the product in Stripe."""
    product_name: str | None
    """Name of the product."""
    price_id: str
    """ID of the price in Stripe."""
    lookup_key: str | None
    """Name that the price keeps when its amount changes; null for none."""
    quantity: int | None
    """Number of units, such as seats; null for a metered price."""
    unit_amount: int | None
    """Amount of one unit, in the currency's minor unit as Stripe counts it; null for a tiered price."""
    currency: str | None
    """Currency of the plan (ISO 4217), lower case."""
    interval: str | None
    """``day``, ``week``, ``month`` or ``year``."""
    interval_count: int | None
    """Number of intervals between two payments."""
    usage_type: str | None
    """``licensed`` or ``metered``."""


class NextInvoice(Part):
    """The next invoice of a plan, computed from its prices and quantities."""

    date: Moment
    """When it is created: at the end of the period."""
    amount: int | None
    """Amount before tax, in the currency's minor unit as Stripe counts it. Null if it depends on usage, tiers,
    a coupon or a schedule."""
    currency: str | None
    """Currency (ISO 4217), lower case; null if the amount is."""


class PlanState(Part):
    """A subscription of a user that has not ended."""

    subscription_id: str
    """ID of the subscription."""
    status: str
    """Stripe's status, for example ``past_due``."""
    entitled: bool
    """Whether it gives the user access now."""
    items: Many[PlanItemState]
    """Its prices."""
    start_date: Moment
    """Start of the current period."""
    end_date: Moment
    """End of the current period."""
    will_renew: bool
    """Whether it continues after the current period."""
    cancel_at: Moment | None
    """When a cancellation takes effect; null if it is not cancelled."""
    cancel_type: CancelType | None
    """``period_end`` if the cancellation takes effect at the end of a period, else ``immediate``; null if it is not
    cancelled."""
    cancelled_at: Moment | None
    """When the cancellation was requested; null if it is not cancelled."""
    trial_ends_at: Moment | None
    """End of the trial; null if it is not on trial."""
    trial_days_left: int | None
    """Days until then, a part of a day counted as one; null if it is not on trial."""
    grace_ends_at: Moment | None
    """End of the grace period for the unpaid invoice; null if all are paid."""
    collection_paused: str | None
    """Stripe's behavior while collection is paused: ``void``, ``keep_as_draft`` or ``mark_uncollectible``; null if it
    is not paused."""
    required_action: RequiredAction | None
    """What the user has to do: ``payment`` of the open invoice, ``authentication`` of its payment by the bank, both at
    ``payment_url``, or adding a ``payment_method`` at ``billing_portal_url``; null if nothing."""
    payment_url: str | None
    """Link to the open invoice, ``<issuer>/invoice/…``. It works for an hour, for everyone who has it."""
    next_invoice: NextInvoice | None
    """The next invoice; null if there will be none."""


class CustomerStateView(Reply):
    """Everything about a user's plans."""

    status: str
    """Stripe's status of the main plan, the first one, or ``none`` if the user has no plan."""
    entitled: bool
    """Whether a plan gives the user access now."""
    features: Many[str]
    """Lookup keys of the features that the user has access to now, sorted."""
    ent_v: int
    """Number of the last change of ``features``. It grows with each change, and is 0 before the first one."""
    plans: Many[PlanState]
    """The user's subscriptions that have not ended; those with access first."""
    billing_portal_url: str | None
    """Link to the customer portal, ``<issuer>/portal/…``. It works for an hour, for everyone who has it. Null if the
    user was never a customer."""


class GetCustomerState(Query, wire="billing.get-customer-state", reply=CustomerStateView, reply_sealed=True):
    """Get the features and plans of a user, and what the user has to do.

    Answered from Nest's records; it makes no call to Stripe.
    """

    user_id: UserId
