"""Fair queue for password hashes: round-robin between networks, with half of the threads' time for known callers.

A flood from one network delays other networks by one hash a turn, whatever its size.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, TypeVar

from prometheus_client import Counter, Gauge

from shared.errors import Unavailable

INITIAL_HASH_SECONDS: Final = 0.1
"""Estimated duration of a hash, until durations have been measured."""
NICENESS: Final = 5
"""Niceness of the hashing threads, relative to the process."""
REPLY_SECONDS: Final = 1.0
"""Part of a caller's deadline that is left for the commit and the reply."""
WAITING: Final = Gauge("nest_auth_password_hashes_waiting", "Password hashes being computed or waiting for a thread.")
TURNED_AWAY: Final = Counter(
    "nest_auth_password_hashes_turned_away", "Calls refused because too many password hashes were waiting."
)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class HashCaller:
    """The caller on whose behalf a password is hashed.

    Attributes:
        network: IP prefix of the caller; empty if it is unknown.
        known: whether the account has been logged in to from this network before.
        deadline: Unix seconds at which the caller stops waiting for the reply; 0 for no deadline.
    """

    network: str = ""
    known: bool = False
    deadline: float = 0.0


Turn = asyncio.Future[None]
"""Resolved when its hash may begin, which occupies a thread."""


class _Lane:
    """Waiting hashes of one class of callers, in a queue per network."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Turn]] = OrderedDict()
        self.count = 0

    def add(self, network: str, turn: Turn) -> None:
        self._queues.setdefault(network, deque()).append(turn)
        self.count += 1

    def discard(self, network: str, turn: Turn) -> None:
        queue = self._queues.get(network, deque())
        if turn in queue:
            queue.remove(turn)
            self.count -= 1
            if not queue:
                del self._queues[network]

    def pop(self) -> Turn:
        """The next turn; its network then goes to the end of the rotation."""
        network, queue = self._queues.popitem(last=False)
        turn = queue.popleft()
        self.count -= 1
        if queue:
            self._queues[network] = queue
        return turn

    def ahead(self, network: str) -> int:
        """Number of hashes that begin before another one of this network."""
        own = len(self._queues.get(network, ()))
        return own + sum(min(len(queue), own + 1) for name, queue in self._queues.items() if name != network)


class HashQueue:
    """Computes hashes in a few low-priority threads.

    Args:
        threads: number of concurrent hashes.
        max_wait: seconds; a call that would wait longer for a thread is refused, and so is one that has.
    """

    def __init__(self, *, threads: int, max_wait: float) -> None:
        self._pool = ThreadPoolExecutor(threads, "argon2", initializer=_lower_priority)
        self._threads = threads
        self._max_wait = max_wait
        self._hash_seconds = INITIAL_HASH_SECONDS
        self._running = 0
        self._lanes = {True: _Lane(), False: _Lane()}
        self._next_lane = True

    @property
    def in_progress(self) -> int:
        """Number of hashes that are being computed or wait for a thread."""
        return self._running + sum(lane.count for lane in self._lanes.values())

    async def run(self, compute: Callable[[], Result], caller: HashCaller) -> Result:
        """Compute a hash when the caller's turn comes.

        Raises:
            Unavailable: the caller's turn would come, or came, too late; ``meta.retry_after`` in seconds.
        """
        await self._turn(caller)
        loop = asyncio.get_running_loop()
        future = self._pool.submit(_timed, compute)
        # Counted until the thread has finished: the waiting task may have been cancelled long before.
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._finish, done))
        return (await asyncio.wrap_future(future))[0]

    async def aclose(self) -> None:
        """Stop the threads after their current hash; waiting hashes are cancelled."""
        for lane in self._lanes.values():
            while lane.count:
                lane.pop().cancel()
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    async def _turn(self, caller: HashCaller) -> None:
        """Wait for the caller's turn, and occupy a thread."""
        wait, expected = self._longest_wait(caller), self._expected_wait(caller)
        if expected > wait:
            raise _turned_away(expected)
        lane, turn = self._lanes[caller.known], asyncio.get_running_loop().create_future()
        lane.add(caller.network, turn)
        self._begin_next()
        began = time.monotonic()
        try:
            async with asyncio.timeout(wait):
                await turn
        except BaseException as interrupted:
            if turn.done() and not turn.cancelled():
                # The turn came in the same moment.
                self._release()
            else:
                lane.discard(caller.network, turn)
            WAITING.set(self.in_progress)
            if isinstance(interrupted, TimeoutError):
                raise _turned_away(time.monotonic() - began) from None
            raise

    def _begin_next(self) -> None:
        while self._running < self._threads and any(lane.count for lane in self._lanes.values()):
            if not self._lanes[self._next_lane].count:
                self._next_lane = not self._next_lane
            turn = self._lanes[self._next_lane].pop()
            self._next_lane = not self._next_lane
            if not turn.done():
                self._running += 1
                turn.set_result(None)
        WAITING.set(self.in_progress)

    def _release(self) -> None:
        self._running -= 1
        self._begin_next()

    def _finish(self, future: Future[tuple[Any, float]]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._hash_seconds += (future.result()[1] - self._hash_seconds) / 8
        self._release()

    def _longest_wait(self, caller: HashCaller) -> float:
        """Seconds that the caller may wait for its turn."""
        left = caller.deadline - time.time()
        # A caller whose deadline has passed has its command executed all the same, as every command.
        if left <= 0:
            return self._max_wait
        return min(self._max_wait, max(0.0, left - REPLY_SECONDS - self._hash_seconds))

    def _expected_wait(self, caller: HashCaller) -> float:
        """Estimated seconds until one more hash of this caller would begin."""
        ahead = self._lanes[caller.known].ahead(caller.network)
        ahead += min(self._lanes[not caller.known].count, ahead + 1)
        return max(0, self._running + ahead - self._threads + 1) * self._hash_seconds / self._threads


def _turned_away(wait: float) -> Unavailable:
    TURNED_AWAY.inc()
    return Unavailable(retry_after=max(1, ceil(wait)))


def _timed(compute: Callable[[], Result]) -> tuple[Result, float]:
    began = time.perf_counter()
    return compute(), time.perf_counter() - began


def _lower_priority() -> None:
    """Give the thread a lower priority than the event loop.

    On Linux niceness belongs to the thread, and argon2's own threads inherit it.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
