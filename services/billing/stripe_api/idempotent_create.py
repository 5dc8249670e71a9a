"""Creation of a Stripe object exactly once, across crashes and processes.

Under an idempotency key made from stable IDs a repeat gets the first response again, whichever process sends it. Stripe
keeps keys for a day and keeps failures under them too; where a key can no longer guarantee this, the object is looked
up before it is created.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from services.billing.stripe_api.calls import KeySpent
from shared.messages.billing.errors import StripeUnavailable

MAX_GENERATIONS: Final = 3
"""Spent keys in a row after which the creation is left to a later retry."""


async def idempotent_create(
    *, find: Callable[[], Awaitable[str | None]], create: Callable[[int], Awaitable[str]], find_first: bool
) -> str:
    """Create an object, or find the one that an earlier attempt created, and return its ID.

    ``create`` uses the key of a generation, counted from 0. ``find_first`` is set if Stripe may have forgotten the keys
    of earlier attempts. Raises StripeUnavailable if Stripe is unavailable or the keys of all generations are spent.
    """
    for generation in range(MAX_GENERATIONS):
        if find_first and (existing := await find()) is not None:
            return existing
        try:
            return await create(generation)
        except KeySpent:
            find_first = True
    raise StripeUnavailable


def key_of_generation(key: str, generation: int) -> str:
    """The idempotency key of a generation; each one replaces the spent keys before it."""
    return key if generation == 0 else f"{key}:{generation}"
