"""Changes of a subscription's prices and quantities as billing orders them, and previews of their invoices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Proration = Literal["always_invoice", "create_prorations", "none"]
"""Stripe's ``proration_behavior``: the difference for the rest of the period is invoiced at once, with the next
invoice, or never (https://docs.stripe.com/billing/subscriptions/prorations)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemChange:
    """Another price or quantity of one item; ``quantity`` is None for a metered price."""

    item_id: str
    old_price_id: str
    price_id: str
    quantity: int | None

    @property
    def params(self) -> dict[str, Any]:
        """The item with its price and quantity, as Stripe's parameter."""
        quantity = {} if self.quantity is None else {"quantity": self.quantity}
        return {"price": self.price_id, **quantity}


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePreview:
    """An invoice that does not exist yet; amounts in the currency's minor unit.

    Attributes:
        due: what the customer pays, after the credit on the customer's balance.
        credit: for the unused time of replaced prices; part of the invoice.
        prorated: whether it has prorations.
        recurring: the part that is for whole periods, before discounts and taxes.
        total: before the customer's balance; negative if the customer gets a credit.
        period_end: the latest end of a period that it bills.
    """

    currency: str
    due: int
    credit: int
    prorated: bool
    recurring: int
    total: int
    period_end: datetime
