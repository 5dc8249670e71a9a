from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.auth.accounts.hash_queue import INITIAL_HASH_SECONDS, NICENESS, HashCaller, HashQueue
from shared.errors import Unavailable
from tests.stack import eventually

FLOOD = HashCaller("203.0.113.0/24")
OTHER = HashCaller("198.51.100.0/24")
KNOWN = HashCaller("192.0.2.0/24", known=True)


class Harness:
    """A queue with one thread, whose first hash ends when ``open`` is called; records the order of the others."""

    def __init__(self, max_wait: float = 60.0) -> None:
        self.queue = HashQueue(threads=1, max_wait=max_wait)
        self.order: list[str] = []
        self._gate = threading.Event()
        self._tasks: list[asyncio.Task[Any]] = []

    async def occupy(self) -> None:
        self._tasks.append(asyncio.create_task(self.queue.run(self._gate.wait, HashCaller("occupant"))))
        await eventually(lambda: self.queue.in_progress == 1)

    async def submit(self, name: str, caller: HashCaller) -> asyncio.Task[None]:
        before = self.queue.in_progress
        task = asyncio.create_task(self.queue.run(lambda: self.order.append(name), caller))
        self._tasks.append(task)
        await eventually(lambda: self.queue.in_progress == before + 1 or task.done())
        return task

    async def drain(self) -> list[str]:
        self._gate.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await eventually(lambda: self.queue.in_progress == 0)
        return self.order

    async def close(self) -> None:
        self._gate.set()
        await self.queue.aclose()


@pytest.fixture
async def new_queue() -> AsyncIterator[Callable[..., Harness]]:
    """Factory of harnesses, which are closed after the test."""
    async with AsyncExitStack() as stack:

        def make(**options: float) -> Harness:
            harness = Harness(**options)
            stack.push_async_callback(harness.close)
            return harness

        yield make


async def test_other_network_waits_for_one_hash_of_a_flood(new_queue: Callable[..., Harness]) -> None:
    queue = new_queue()
    await queue.occupy()
    for number in range(20):
        await queue.submit(f"flood {number}", FLOOD)
    await queue.submit("other", OTHER)
    order = await queue.drain()
    assert order.index("other") == 1
    assert [name for name in order if name != "other"] == [f"flood {number}" for number in range(20)]


async def test_known_caller_waits_for_one_hash_of_strangers_in_many_networks(
    new_queue: Callable[..., Harness],
) -> None:
    queue = new_queue()
    await queue.occupy()
    for number in range(30):
        await queue.submit(f"stranger {number}", HashCaller(f"203.0.{number}.0/24"))
    await queue.submit("known", KNOWN)
    await queue.submit("known again", KNOWN)
    order = await queue.drain()
    assert order.index("known") <= 1
    assert order.index("known again") <= 3


async def test_strangers_get_every_second_turn_of_a_flood_of_known_callers(new_queue: Callable[..., Harness]) -> None:
    queue = new_queue()
    await queue.occupy()
    for number in range(20):
        await queue.submit(f"known {number}", HashCaller(f"203.0.{number}.0/24", known=True))
    for number in range(5):
        await queue.submit(f"stranger {number}", OTHER)
    order = await queue.drain()
    assert [order.index(f"stranger {number}") for number in range(5)] == pytest.approx([1, 3, 5, 7, 9], abs=1)


@pytest.mark.parametrize(("caller", "refused"), [(FLOOD, True), (OTHER, False), (KNOWN, False)])
async def test_only_the_network_of_a_flood_is_turned_away(
    new_queue: Callable[..., Harness],
    caller: HashCaller,
    refused: bool,  # noqa: FBT001
) -> None:
    queue = new_queue(max_wait=10.5 * INITIAL_HASH_SECONDS)
    await queue.occupy()
    for number in range(10):
        await queue.submit(f"flood {number}", FLOOD)
    task = await queue.submit("last", caller)
    if refused:
        with pytest.raises(Unavailable) as turned_away:
            await task
        assert turned_away.value.meta["retry_after"] >= 1
    else:
        assert not task.done()
    await queue.drain()
    assert ("last" in queue.order) is not refused


async def test_call_that_has_waited_too_long_is_refused_and_not_hashed(new_queue: Callable[..., Harness]) -> None:
    queue = new_queue(max_wait=2 * INITIAL_HASH_SECONDS)
    await queue.occupy()
    task = await queue.submit("late", OTHER)
    with pytest.raises(Unavailable):
        await task
    assert await queue.drain() == []


@pytest.mark.parametrize(
    ("seconds_left", "refused"), [(0.5, True), (30.0, False), (-5.0, False)], ids=["too_late", "in_time", "passed"]
)
async def test_call_is_refused_before_its_caller_stops_waiting(
    new_queue: Callable[..., Harness],
    seconds_left: float,
    refused: bool,  # noqa: FBT001
) -> None:
    """A command whose deadline has passed is executed, as every command."""
    queue = new_queue()
    await queue.occupy()
    task = await queue.submit("call", HashCaller("203.0.113.0/24", deadline=time.time() + seconds_left))
    if refused:
        with pytest.raises(Unavailable):
            await task
    assert (await queue.drain() == []) is refused


async def test_cancelled_call_leaves_the_queue(new_queue: Callable[..., Harness]) -> None:
    queue = new_queue()
    await queue.occupy()
    cancelled = await queue.submit("cancelled", OTHER)
    await queue.submit("next", OTHER)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert queue.queue.in_progress == 2
    assert await queue.drain() == ["next"]


async def test_cancelled_call_counts_until_its_thread_has_finished() -> None:
    queue = HashQueue(threads=1, max_wait=INITIAL_HASH_SECONDS / 2)
    gate = threading.Event()
    running = asyncio.create_task(queue.run(gate.wait, FLOOD))
    await eventually(lambda: queue.in_progress == 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(Unavailable):
        await queue.run(lambda: None, FLOOD)
    gate.set()
    await eventually(lambda: queue.in_progress == 0)
    await queue.aclose()


async def test_close_cancels_waiting_calls(new_queue: Callable[..., Harness]) -> None:
    queue = new_queue()
    await queue.occupy()
    waiting = await queue.submit("waiting", OTHER)
    await queue.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_hashing_threads_have_a_lower_priority() -> None:
    queue = HashQueue(threads=2, max_wait=5.0)

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert await queue.run(niceness, FLOOD) == min(niceness() + NICENESS, 19)
    await queue.aclose()


async def test_estimated_wait_follows_measured_durations() -> None:
    queue = HashQueue(threads=1, max_wait=0.05)
    for _ in range(50):
        await queue.run(lambda: None, FLOOD)
        await eventually(lambda: queue.in_progress == 0)
    # With the initial estimate the second call would be refused, with the measured duration it is not.
    await asyncio.gather(*(queue.run(lambda: None, FLOOD) for _ in range(3)))
    await queue.aclose()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30))
async def test_every_network_and_class_gets_its_turns(calls: list[tuple[int, bool]]) -> None:
    """Between two hashes of one network, no other network of its class begins more than two."""
    queue = Harness()
    await queue.occupy()
    for network, known in calls:
        await queue.submit(f"{network} {known}", HashCaller(str(network), known=known))
    order = await queue.drain()
    await queue.close()
    assert sorted(order) == sorted(f"{network} {known}" for network, known in calls)
    for name in set(order):
        places = [place for place, each in enumerate(order) if each == name]
        for begin, end in zip([-1, *places], places, strict=False):
            between = [each for each in order[begin + 1 : end] if each.endswith(name.split()[1])]
            assert all(between.count(each) <= 2 for each in set(between) - {name})
