"""What does a Stripe account have, page by page? Lists of everything, newest first, as far as a step of a run gets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

from services.billing.stripe_api.calls import Calls, StripeRefused
from services.billing.stripe_api.parsing import Json

Entry = TypeVar("Entry")
Seen = TypeVar("Seen")
Listed = Literal["customers", "subscriptions", "payments", "disputes"]
STEP_SECONDS: Final = 15.0
"""A step ends when it has taken so long, wherever on its page it is: a handler may take 60, and a call 20."""
AT_ONCE: Final = 8
_LISTS: Final[dict[Listed, tuple[str, Json]]] = {
    "customers": ("/v1/customers", {"limit": 100}),
    # Without a status Stripe leaves out the ended ones.
    "subscriptions": (
        "/v1/subscriptions",
        {"limit": 100, "status": "all", "expand": ["data.customer", "data.discounts"]},
    ),
    "payments": ("/v1/payment_intents", {"limit": 50, "expand": ["data.customer", "data.latest_charge"]}),
    "disputes": ("/v1/disputes", {"limit": 100, "expand": ["data.charge"]}),
}


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list of Stripe's.

    Attributes:
        entries: newest first.
        more: whether there are older ones.
    """

    entries: list[Json]
    more: bool


async def page_of(listed: Listed, calls: Calls, *, after: str | None) -> Page:
    """The next page of everything of a kind.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    path, params = _LISTS[listed]
    return await _page(f"list_{listed}", path, params, calls, after)


async def events_page(calls: Calls, *, after: str | None, **chosen: Any) -> Page:
    """The next page of the account's events, of which Stripe tells for 30 days.

    Args:
        calls: to the account.
        after: where the page before ended.
        chosen: filters as Stripe has them: ``types``, ``created``, ``delivery_success``.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    return await _page("list_events", "/v1/events", {"limit": 100, **chosen}, calls, after)


async def find_event(event_id: str, calls: Calls) -> Json | None:
    """One event; None if Stripe has it no more, or never had.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    try:
        return await calls.get("event", f"/v1/events/{quote(event_id, safe='')}", {})
    except StripeRefused as refused:
        if refused.code == "resource_missing":
            return None
        raise


async def as_far(entries: Sequence[Entry], look: Callable[[Entry], Awaitable[Seen]]) -> list[Seen]:
    """Look at entries, a few at a time, for as long as a step may take.

    Returns:
        What came of them, in their order; of fewer than there are when the time was over, of one at least.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + STEP_SECONDS
    seen: list[Seen] = []
    while len(seen) < len(entries) and (not seen or loop.time() < until):
        chunk = entries[len(seen) : len(seen) + AT_ONCE]
        # One that fails must not cancel the others: a cancelled read costs MongoDB's driver the connection.
        for outcome in await asyncio.gather(*map(look, chunk), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            seen.append(outcome)
    return seen


async def _page(name: str, path: str, params: Json, calls: Calls, after: str | None) -> Page:
    cursor = {} if after is None else {"starting_after": after}
    found = await calls.get(name, path, {**params, **cursor})
    return Page(found["data"], found["has_more"])
