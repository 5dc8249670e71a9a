"""The deadline of a waiting caller, within which the calls to Stripe end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from services.billing.stripe_api.account import Stripe
from shared.bus.envelope import unix_milliseconds
from shared.bus.work import Work
from shared.messages.billing.errors import StripeUnavailable

REPLY_SECONDS: Final = 1.0
"""Part of a caller's deadline that is left for the reply, so that a caller still learns of an outage of Stripe."""
MIN_SECONDS: Final = 1.0
"""Minimum time for the calls to Stripe; with less until the deadline nobody waits any more."""


@asynccontextmanager
async def within_deadline(stripe: Stripe, work: Work) -> AsyncIterator[Stripe]:
    """The account for the calls of one message, with the priority of a waiting caller.

    The block ends within the caller's deadline. If no caller waits, for example after a crash, it has the time of one
    call. Raises StripeUnavailable when the time is over.
    """
    deadline = work.cause.deadline
    left = (deadline - unix_milliseconds()) / 1000 - REPLY_SECONDS
    seconds = left if deadline and left >= MIN_SECONDS else stripe.calls.timeouts.call
    try:
        async with asyncio.timeout(seconds):
            yield stripe.within(seconds)
    except TimeoutError:
        raise StripeUnavailable from None
