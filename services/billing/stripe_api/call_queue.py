"""Priorities of calls to Stripe: who gets the next token of the rate limit, and which work is postponed instead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from prometheus_client import Gauge

from services.billing.stripe_api.token_bucket import TokenBucket


class Priority(IntEnum):
    """Priority of a call, the most urgent one first."""

    COMMAND = 0
    """Of a command whose caller waits, such as a trial."""
    QUERY = 1
    """Of a query whose caller waits, such as one for a session of the customer portal."""
    BACKGROUND = 2
    """Of work that no caller waits for, such as the readings that webhooks cause."""
    LOW = 3
    """Of a Stripe run."""


SHARES: Final = {Priority.COMMAND: 0.35, Priority.QUERY: 0.15, Priority.BACKGROUND: 0.35}
"""Guaranteed shares of the rate. The rest, and what a priority leaves unused, goes to the most urgent call."""
LOW_PRIORITY_SHARE: Final = 0.25
"""Highest share of the rate for low-priority calls; they only use what other calls leave."""
ADMISSION_SECONDS: Final = 1.0
"""A command of the background whose first call would wait longer is postponed, so that it does not hold its slot."""
_WAITING: Final = Gauge("nest_stripe_calls_waiting", "Calls to Stripe that wait for the rate limit.", ["priority"])


class StripeBusy(Exception):
    """A command that no caller waits for is to be postponed: its first call to Stripe was not made.

    Attributes:
        family: endpoint family of the call.
        seconds: after how long the command is to be tried again.
    """

    def __init__(self, family: str, seconds: float) -> None:
        super().__init__(family)
        self.family = family
        self.seconds = seconds


@dataclass(slots=True)
class CallContext:
    """The message that is being handled, as far as its calls to Stripe are concerned.

    Attributes:
        priority: of its calls.
        deadline: when its calls must end, in the time of the event loop.
        postponable: whether StripeBusy may be raised instead of making its first call.
        admitted: whether its first call was made. The further ones wait for the rate limit, so that no call is wasted.
    """

    priority: Priority
    deadline: float = float("inf")
    postponable: bool = False
    admitted: bool = False


_CONTEXT: ContextVar[CallContext | None] = ContextVar("stripe_call_context", default=None)


def call_context() -> CallContext | None:
    """The context of the message that is being handled; None outside of one."""
    return _CONTEXT.get()


@contextmanager
def calls_for(context: CallContext) -> Iterator[None]:
    """Make the calls inside of the block in a context."""
    token = _CONTEXT.set(context)
    try:
        yield
    finally:
        _CONTEXT.reset(token)


class CallQueue:
    """The calls that wait for the rate limit, by priority, and in order within one.

    ``rate`` is in calls per second of this process.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._bucket = TokenBucket(rate)
        self._guaranteed = {priority: TokenBucket(rate * share) for priority, share in SHARES.items()}
        self._low_priority_bucket = TokenBucket(rate * LOW_PRIORITY_SHARE)
        self._waiting: dict[Priority, deque[asyncio.Future[None]]] = {priority: deque() for priority in Priority}
        self._timer: asyncio.TimerHandle | None = None
        self._postponed_until = 0.0
        """When the next postponed command is due, in the time of the event loop."""

    def expected_wait(self, priority: Priority) -> float:
        """Seconds until a further call of this priority gets a token, unless more urgent ones arrive meanwhile."""
        own = len(self._waiting[priority]) + 1
        ahead = sum(len(queue) for each, queue in self._waiting.items() if each <= priority) + 1
        rivals = sum(share for each, share in SHARES.items() if each > priority and self._waiting[each])
        by_priority = self._bucket.next_wait + (ahead - 1) / (self._rate * (1 - rivals))
        share = SHARES.get(priority)
        return by_priority if share is None else min(by_priority, self._bucket.next_wait + own / (self._rate * share))

    def postponement(self, priority: Priority) -> float:
        """Seconds for which a command is to be postponed.

        Each command gets a time of its own, in the order of the calls and at the pace of the rate limit, so that a
        storm is worked off without waves.
        """
        now = asyncio.get_running_loop().time()
        earliest = now + max(self.expected_wait(priority), ADMISSION_SECONDS)
        self._postponed_until = max(self._postponed_until + 1 / self._rate, earliest)
        return self._postponed_until - now

    async def wait(self, priority: Priority, *, deadline: float) -> bool:
        """Wait for a token; return False at once if none can be expected by the deadline, or at the deadline."""
        loop = asyncio.get_running_loop()
        if priority is Priority.LOW:
            pause = self._low_priority_bucket.take(max_wait=deadline - loop.time())
            if pause is None:
                return False
            await asyncio.sleep(pause)
        if not any(self._waiting[each] for each in Priority if each <= priority) and self._take(priority):
            return True
        if self.expected_wait(priority) > deadline - loop.time():
            return False
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting[priority].append(turn)
        self._count(priority)
        self._schedule()
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except TimeoutError:
            return False
        finally:
            if turn in self._waiting[priority]:
                self._waiting[priority].remove(turn)
                self._count(priority)
        return True

    def _take(self, priority: Priority) -> bool:
        if self._bucket.take(max_wait=0.0) is None:
            return False
        if priority in self._guaranteed:
            self._guaranteed[priority].take(max_wait=0.0)
        return True

    def _schedule(self) -> None:
        if self._timer is None and any(self._waiting.values()):
            self._timer = asyncio.get_running_loop().call_later(self._bucket.next_wait, self._release)

    def _release(self) -> None:
        """Give the tokens that are available now to the waiting calls."""
        self._timer = None
        while any(self._waiting.values()) and self._bucket.take(max_wait=0.0) is not None:
            priority = self._next_priority()
            turn = self._waiting[priority].popleft()
            self._count(priority)
            if not turn.done():
                turn.set_result(None)
        self._schedule()

    def _next_priority(self) -> Priority:
        waiting = [priority for priority in Priority if self._waiting[priority]]
        for priority in waiting:
            bucket = self._guaranteed.get(priority)
            if bucket is not None and bucket.take(max_wait=0.0) is not None:
                return priority
        return waiting[0]

    def _count(self, priority: Priority) -> None:
        _WAITING.labels(priority.name.lower()).set(len(self._waiting[priority]))
