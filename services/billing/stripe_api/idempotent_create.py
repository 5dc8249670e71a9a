"""How is something made in Stripe exactly once, whatever breaks on the way?

Under a key made from stable ids a repeat, by whichever process and after whichever crash, gets the first answer
again. Where a key can't promise that any more (Stripe keeps them for a day, and keeps failures too), it is looked up
first what is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from services.billing.stripe_api.calls import KeySpent
from shared.messages.billing.errors import StripeUnavailable

GENERATIONS: Final = 3
"""How many keys in a row may be spent before it is left to a later try."""


async def once(
    *, find: Callable[[], Awaitable[str | None]], create: Callable[[int], Awaitable[str]], look_first: bool
) -> str:
    """The id of what is there, or was made.

    Args:
        find: looks for what an earlier try made.
        create: makes it, under the key of a generation counted from 0.
        look_first: whether the keys of earlier tries may be forgotten already.

    Raises:
        StripeUnavailable: Stripe could not be reached, or all keys are spent.
    """
    for generation in range(GENERATIONS):
        if look_first and (found := await find()) is not None:
            return found
        try:
            return await create(generation)
        except KeySpent:
            look_first = True
    raise StripeUnavailable


def generation_of(key: str, generation: int) -> str:
    """A key, or the one that takes over when those before it are spent."""
    return key if generation == 0 else f"{key}:{generation}"
