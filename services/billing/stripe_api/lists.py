"""Pages of Stripe's lists of whole collections, newest first, for runs over the account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from services.billing.stripe_api.calls import Calls
from services.billing.stripe_api.parsing import Json

StripeList = Literal["customers", "subscriptions", "payments", "disputes"]
_LISTS: Final[dict[StripeList, tuple[str, Json]]] = {
    "customers": ("/v1/customers", {"limit": 100}),
    # Without ``status`` Stripe leaves out ended subscriptions.
    "subscriptions": (
        "/v1/subscriptions",
        {"limit": 100, "status": "all", "expand": ["data.customer", "data.discounts"]},
    ),
    "payments": ("/v1/payment_intents", {"limit": 50, "expand": ["data.customer", "data.latest_charge"]}),
    "disputes": ("/v1/disputes", {"limit": 100, "expand": ["data.charge"]}),
}


@dataclass(frozen=True, slots=True)
class Page:
    """A page of one of Stripe's lists.

    Attributes:
        entries: newest first.
        more: whether another page follows.
    """

    entries: list[Json]
    more: bool


async def list_page(name: StripeList, calls: Calls, *, after: str | None) -> Page:
    """The next page of all objects of a kind.

    Args:
        name: of the list.
        calls: to the account.
        after: Stripe's ID of the last entry of the previous page.

    Raises:
        StripeUnavailable: Stripe is unavailable.
    """
    path, params = _LISTS[name]
    return await _page(f"list_{name}", path, params, calls, after)


async def events_page(calls: Calls, *, after: str | None, **filters: Any) -> Page:
    """The next page of the account's events of the last 30 days.

    Args:
        calls: to the account.
        after: Stripe's ID of the last event of the previous page.
        filters: Stripe's parameters: ``types``, ``created``, ``delivery_success``.

    Raises:
        StripeUnavailable: Stripe is unavailable.
    """
    return await _page("list_events", "/v1/events", {"limit": 100, **filters}, calls, after)


async def _page(name: str, path: str, params: Json, calls: Calls, after: str | None) -> Page:
    cursor = {} if after is None else {"starting_after": after}
    page = await calls.get(name, path, {**params, **cursor})
    return Page(page["data"], page["has_more"])
