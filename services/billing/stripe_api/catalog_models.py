"""Products and prices of Stripe, as billing reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

METERED: Final = "metered"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTier:
    """A tier of a price; amounts as in ``PriceAmount``.

    Attributes:
        up_to: the last quantity of the tier; None for the last tier.
        flat_amount: for the tier as a whole, beside the amount of each unit.
    """

    up_to: int | None
    unit_amount: int | None
    unit_amount_decimal: str | None
    flat_amount: int | None
    flat_amount_decimal: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceAmount:
    """The amount of a price in one currency, in its minor unit as Stripe counts it.

    Attributes:
        unit_amount: None for a fraction of the minor unit, and for a tiered price.
        unit_amount_decimal: the same with up to 12 decimals; None for a tiered price.
        tax_behavior: ``inclusive``, ``exclusive`` or ``unspecified``.
        tiers: empty unless the price is tiered.
    """

    unit_amount: int | None
    unit_amount_decimal: str | None
    tax_behavior: str
    tiers: tuple[PriceTier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurring:
    """How often a price is charged, and for what.

    Attributes:
        interval: ``day``, ``week``, ``month`` or ``year``.
        usage_type: ``licensed``, or ``metered`` for reported usage.
        trial_days: default number of trial days; None for no trial.
        meter_id: the meter of the usage, ``mtr_…``; None for a licensed price.
    """

    interval: str
    interval_count: int
    usage_type: str
    trial_days: int | None
    meter_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StripePrice:
    """A price.

    Attributes:
        currency: the default one, in lower case.
        amounts: by currency, the default one first.
        recurring: None for a one-time price.
        tiers_mode: ``graduated`` or ``volume``; None unless the price is tiered.
        divide_by: quantity that is charged as one unit; None for 1. ``round`` is ``up`` or ``down``.
        nickname: internal name.
    """

    id: str
    product_id: str
    active: bool
    currency: str
    amounts: dict[str, PriceAmount]
    recurring: Recurring | None
    tiers_mode: str | None
    divide_by: int | None
    round: str | None
    lookup_key: str | None
    nickname: str | None
    metadata: dict[str, str]
    created: datetime
    livemode: bool

    @property
    def metered(self) -> bool:
        """Whether it charges reported usage instead of a quantity."""
        return self.recurring is not None and self.recurring.usage_type == METERED


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeProduct:
    """A product.

    Attributes:
        marketing_features: texts for a pricing page.
        entitlements: lookup keys of the features of Stripe Entitlements that it grants, sorted.
        unit_label: name of one unit, such as ``seat``.
    """

    id: str
    name: str
    description: str | None
    active: bool
    marketing_features: tuple[str, ...]
    entitlements: tuple[str, ...] = ()
    unit_label: str | None
    default_price_id: str | None
    metadata: dict[str, str] = field(default_factory=dict)
    created: datetime
    livemode: bool

    @property
    def features(self) -> tuple[str, ...]:
        """Lookup keys of the features that it grants: by Stripe Entitlements, else by its metadata ``features``.

        The metadata has keys that are separated by commas.
        """
        if self.entitlements:
            return self.entitlements
        return tuple(sorted(set(filter(None, map(str.strip, self.metadata.get("features", "").split(","))))))
