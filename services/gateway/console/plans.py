"""Page of the plans that are on sale."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.console.pages import Link, PageTable, Visit
from services.gateway.responses import HttpResponse
from shared.money import format_amount

PLANS: Final = PageTable(Link("Apps", "Plans", "/console/plans"))


@PLANS.page("/console/plans")
async def plans(visit: Visit) -> HttpResponse:
    """The plans as apps list them."""
    view = await visit.call("list_plans")
    return visit.page("plans.html", plans=view["plans"], amount=_amount, interval=_interval)


def _amount(amount: dict[str, Any], currency: str) -> str:
    """An amount of a price in words."""
    if amount["tiers"]:
        return f"{len(amount['tiers'])} tiers, {currency.upper()}"
    if amount["unit_amount"] is None:
        return f"{amount['unit_amount_decimal']} minor units of {currency.upper()}"
    return format_amount(amount["unit_amount"], currency)


def _interval(price: dict[str, Any]) -> str:
    """``month`` or ``3 months``."""
    count, name = price["interval_count"], price["interval"]
    return str(name) if count == 1 else f"{count} {name}s"
