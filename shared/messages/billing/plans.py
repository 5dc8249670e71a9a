"""Plans: the products and prices that Nest sells, and the commands that read them from Stripe."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.billing.stripe_events import StripeCommand, StripeReread
from shared.messages.message import Part, Query, Reply
from shared.messages.types import Many

MAX_PLANS: Final = 100
MAX_PRICES: Final = 50
"""Prices of one plan."""
Quantity = Annotated[int, Field(ge=1, le=999_999)]
"""Number of units in an order, such as seats; Stripe's bound."""
UnitAmount = Annotated[
    int | None,
    Field(
        description=(
            "Amount of one unit, in the currency's minor unit as Stripe counts it: 1000 is 10.00 USD, 1000 JPY (no "
            "decimals) or 1.000 KWD (three decimals). ``decimals`` has the number of decimals. Null for a fraction of "
            "the minor unit, and for a tiered price."
        )
    ),
]
DecimalAmount = Annotated[
    str | None,
    Field(
        description=(
            "Amount of one unit, in the currency's minor unit, with up to 12 decimals: ``1000`` or ``0.5``. Null for "
            "a tiered price."
        )
    ),
]


class PlanTier(Part):
    """A tier of a price."""

    up_to: int | None
    """Last quantity of the tier. Null for the last tier."""
    unit_amount: UnitAmount
    unit_amount_decimal: DecimalAmount
    flat_amount: int | None
    """Amount of the tier as a whole, in the currency's minor unit. Added to the amounts of the units; null for none."""
    flat_amount_decimal: str | None
    """As ``flat_amount``, with up to 12 decimals."""


class PlanAmount(Part):
    """The amount of a price in one currency."""

    unit_amount: UnitAmount
    unit_amount_decimal: DecimalAmount
    decimals: int
    """Number of decimals that Stripe counts in this currency: the amount in units of the currency is ``unit_amount``
    divided by 10 to this power. 2 for most, 0 for JPY and others, 3 for KWD and others; ISK and UGX have no decimals,
    but Stripe counts 2."""
    tax_behavior: str
    """``inclusive`` (the amount contains the tax), ``exclusive`` (the tax is added) or ``unspecified``."""
    tiers: Many[PlanTier]
    """Tiers of a tiered price, lowest first; empty for others."""


class PlanPrice(Part):
    """A price for which a plan is sold."""

    price_id: str
    """ID of the price in Stripe."""
    lookup_key: str | None
    """Name that the price keeps when its amount changes, which gives it a new ID; null for none."""
    interval: str
    """``day``, ``week``, ``month`` or ``year``."""
    interval_count: int
    """Number of intervals between two payments: 3 with ``month`` for a quarter."""
    usage_type: str
    """``licensed`` (a quantity is subscribed) or ``metered`` (reported usage is charged)."""
    trial_days: int | None
    """Days of a trial before the first payment; null for no trial."""
    max_quantity: int | None
    """Highest quantity (number of seats) that may be subscribed: 999,999 without a limit in Stripe's metadata, null for
    metered prices, which have no quantity."""
    divide_by: int | None
    """Number of units that are charged as one; null for 1."""
    round: str | None
    """``up`` or ``down``: how the quantity is rounded after the division by ``divide_by``; null without it."""
    tiers_mode: str | None
    """``graduated`` (each unit has the amount of the tier that it falls into), ``volume`` (all units have the amount of
    the tier that the quantity falls into), or null without tiers."""
    currency: str
    """Default currency, an ISO 4217 code in lower case: ``usd``."""
    amounts: Annotated[dict[str, PlanAmount], Field(max_length=1_000)]
    """Amounts by currency, ISO 4217 codes in lower case."""


class PlanView(Part):
    """A plan: a product with the prices for which it is sold."""

    product_id: str
    """ID of the product in Stripe."""
    name: str
    """Name of the product."""
    description: str | None
    """Description for customers; null for none."""
    marketing_features: Many[str]
    """Texts for a page with prices, as in Stripe."""
    features: Many[str]
    """Lookup keys of the features to which the plan entitles, sorted: from Stripe Entitlements, else from the
    product's metadata ``features``."""
    unit_label: str | None
    """Name of one unit of the quantity, such as ``seat``; null for none."""
    prices: Many[PlanPrice]
    """Prices, in the order in which to show them."""


class PlansView(Reply):
    """The plans that are on sale."""

    plans: Many[PlanView]
    """The plans, in the order in which to show them; 100 at most, with 50 prices each."""


class ListPlans(Query, wire="billing.list-plans", reply=PlansView, shared=True):
    """List the plans that are on sale, with their prices.

    These are active products of the Stripe account with active recurring prices: those in the setting
    ``NEST_STRIPE_PRODUCTS``; without it those whose metadata has ``nest=true``, or all if none has. Metadata
    ``nest=false`` excludes a product or price. Metadata ``nest_order``, a whole number, orders plans and prices; those
    without it follow, lowest amount first. A change in Stripe is listed within seconds.
    """


class FollowProduct(StripeReread, wire="billing.follow-product"):
    """Read a product from Stripe, and record it."""

    product_id: str


class FollowPrice(StripeReread, wire="billing.follow-price"):
    """Read a price from Stripe, and record it."""

    price_id: str


class SyncCatalog(StripeCommand, wire="billing.sync-catalog"):
    """Read the next page of all products, then of all prices, and record what differs. Idempotent."""

    part: Literal["products", "prices"] = "products"
    cursor: str | None = None
    """Stripe's ID of the last object that was recorded; None at the start of a part."""
