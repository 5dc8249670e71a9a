"""Rescheduling of commands that need Stripe while it is unavailable, or busy with more urgent calls."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, Final

from prometheus_client import Counter
from pydantic import BaseModel

from services.billing.stripe_api.call_queue import CallContext, Priority, StripeBusy, calls_for
from services.billing.stripe_api.deadlines import MIN_SECONDS, REPLY_SECONDS
from shared.bus.envelope import unix_milliseconds
from shared.bus.handling import Handler
from shared.bus.work import Work
from shared.messages import Command, Message, Query
from shared.messages.billing.stripe_events import StripeCommand

FIRST_PAUSE: Final = timedelta(seconds=5)
MAX_PAUSE: Final = timedelta(minutes=15)
_POSTPONED: Final = Counter(
    "nest_stripe_commands_postponed",
    "Commands that wait in a timer because Stripe's rate limit is used up, by type and endpoint family.",
    ["type", "family"],
)


def prioritized(handler: Handler) -> Handler:
    """A handler whose calls to Stripe have the priority and the deadline of its message.

    A command that no caller waits for and that can be rescheduled is postponed while Stripe is busy: its timer is
    committed, and its slot is free for other messages.
    """

    @wraps(handler)
    async def handle(message: Message, work: Work, context: Any) -> BaseModel | None:
        calls = _context_of(message, work)
        try:
            with calls_for(calls):
                return await handler(message, work, context)
        except StripeBusy as busy:
            assert isinstance(message, StripeCommand)  # noqa: S101 -- no other is postponable
            _POSTPONED.labels(message.wire, busy.family).inc()
            work.discard_state()
            again = message.model_copy(update={"key": work.key})
            work.publish(again, at=work.now + timedelta(seconds=busy.seconds))
            return None

    return handle


def _context_of(message: Message, work: Work) -> CallContext:
    deadline = work.cause.deadline
    left = (deadline - unix_milliseconds()) / 1000 - REPLY_SECONDS
    if isinstance(message, Query):
        until = asyncio.get_running_loop().time() + left if deadline else float("inf")
        return CallContext(Priority.QUERY, until)
    if isinstance(message, Command) and deadline and left >= MIN_SECONDS:
        return CallContext(Priority.COMMAND, asyncio.get_running_loop().time() + left)
    return CallContext(Priority.BACKGROUND, postponable=isinstance(message, StripeCommand))


def reschedule(command: StripeCommand, work: Work) -> None:
    """Publish a command again for later, with its attempt counted, because Stripe is unavailable."""
    retry = command.model_copy(update={"key": work.key, "attempt": command.attempt + 1})
    work.publish(retry, at=retry_time(command.attempt, work))


def retry_time(attempt: int, work: Work) -> datetime:
    """The time of the next attempt: pauses grow from 5 s to 15 min and then stay there until Stripe answers.

    There is no last attempt, because a record that is not synchronized stays wrong. Pauses are jittered by 30 %, since
    an outage makes many commands wait.

    Args:
        attempt: number of the failed attempt, counted from 1.
        work: of the failed command.
    """
    pause = min(FIRST_PAUSE * 3.0 ** min(attempt - 1, 10), MAX_PAUSE)
    return work.now + pause * random.uniform(0.7, 1.3)  # noqa: S311 -- jitter
