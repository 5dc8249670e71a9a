"""Which page of a list did the caller ask for? Filters, cursors and `has_more`."""

from collections.abc import Callable
from typing import Any

from services.stripe_double.account import Account, Json
from services.stripe_double.errors import missing
from services.stripe_double.params import Params
from services.stripe_double.presentation import present

DEFAULT_LIMIT = 10
MAX_LIMIT = 100


def page(account: Account, params: Params, url: str, entries: list[Json], *, among: list[Json] | None = None) -> Json:
    """Returns the asked part of the entries as Stripe's list object.

    Args:
        account: Where the objects are.
        params: `limit` (1 to 100, default 10), `starting_after`, `ending_before`, `created`.
        url: The path of the list.
        entries: All that pass the other filters, newest first.
        among: All that cursors may name, newest first, where what passes the filters changes by itself.

    Raises:
        StripeApiError: 400 for a limit out of bounds, a cursor that isn't there, an unknown parameter.
    """
    limit = params.integer("limit", DEFAULT_LIMIT) or 0
    if not 1 <= limit <= MAX_LIMIT:
        raise params.refuse("limit", "Limit must be between 1 and 100.", "parameter_invalid_integer")
    after, before = params.text("starting_after"), params.text("ending_before")
    if after and before:
        raise params.refuse("starting_after", "You may only specify one of these: starting_after, ending_before.")
    in_range = _range(params, "created")
    if in_range is not None:
        entries = [entry for entry in entries if in_range(entry["created"])]
    params.finish()
    if among is not None:
        entries = _beyond(entries, among, after, before)
        after = None
    if before and among is not None:
        chosen, more = entries[-limit:], len(entries) > limit
    elif before:
        newer = entries[: _position(entries, before, "ending_before")]
        chosen, more = newer[-limit:], len(newer) > limit
    else:
        older = entries[_position(entries, after, "starting_after") + 1 :] if after else entries
        chosen, more = older[:limit], len(older) > limit
    return {
        "object": "list",
        "data": [present(account, entry) for entry in chosen],
        "has_more": more,
        "url": url,
    }


def filtered(params: Params, entries: list[Json], *members: str) -> list[Json]:
    """Returns the entries whose members equal the parameters of the same names, where sent."""
    wanted = {name: value for name in members if (value := params.text(name)) is not None}
    if not wanted:
        return entries
    return [entry for entry in entries if all(entry.get(name) == value for name, value in wanted.items())]


def flagged(params: Params, entries: list[Json], member: str) -> list[Json]:
    """Returns the entries whose Boolean member is as the parameter of that name says, where sent."""
    wanted = params.flag(member)
    return entries if wanted is None else [entry for entry in entries if entry[member] is wanted]


def of_customer(account: Account, params: Params, kind: str) -> list[Json]:
    """Returns the objects of a kind, those of one customer alone when the parameters name it."""
    customer = params.text("customer")
    return account.all(kind) if customer is None else account.owned(kind, customer)


_COMPARISONS: dict[str, Callable[[Any, int], bool]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}


def _range(params: Params, name: str) -> Callable[[int], bool] | None:
    """Returns what tells whether a time is in the range asked for, which is read even where there is no time.

    None where no range is asked for: not all that is listed has such a time.
    """
    if isinstance(params.raw(name), str):
        exactly = params.integer(name)
        return lambda value: value == exactly
    bounds = params.child(name)
    if bounds is None:
        return None
    given = [
        (holds, bound)
        for comparison, holds in _COMPARISONS.items()
        if (bound := bounds.integer(comparison)) is not None
    ]
    bounds.finish()
    return lambda value: all(holds(value, bound) for holds, bound in given)


def _beyond(entries: list[Json], among: list[Json], after: str | None, before: str | None) -> list[Json]:
    """Returns the entries on the cursor's far side, whether or not what it names is one of them."""
    if after:
        older = {entry["id"] for entry in among[_position(among, after, "starting_after") + 1 :]}
        return [entry for entry in entries if entry["id"] in older]
    if before:
        newer = {entry["id"] for entry in among[: _position(among, before, "ending_before")]}
        return [entry for entry in entries if entry["id"] in newer]
    return entries


def _position(entries: list[Json], identifier: str, param: str) -> int:
    for position, entry in enumerate(entries):
        if entry["id"] == identifier:
            return position
    kind = entries[0]["object"] if entries else "object"
    raise missing(kind, identifier, param=param)
