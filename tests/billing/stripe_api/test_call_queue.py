"""Order in which calls of different priorities get the tokens of the rate limit."""

import asyncio
from collections import Counter

import pytest

from services.billing.stripe_api.call_queue import CallQueue, Priority

RATE = 100.0


async def run_all(queue: CallQueue, calls: dict[Priority, int], *, seconds: float = 10.0) -> list[Priority]:
    """Make all these calls at once; return the priorities in the order of the tokens."""
    order: list[Priority] = []

    async def call(priority: Priority) -> None:
        if await queue.wait(priority, deadline=asyncio.get_running_loop().time() + seconds):
            order.append(priority)

    async with asyncio.TaskGroup() as group:
        for priority, count in calls.items():
            for _ in range(count):
                group.create_task(call(priority))
    return order


async def used_up() -> CallQueue:
    """A queue whose saved tokens are spent."""
    queue = CallQueue(RATE)
    loop = asyncio.get_running_loop()
    while await queue.wait(Priority.BACKGROUND, deadline=loop.time()):
        pass
    return queue


@pytest.mark.parametrize("urgent", [Priority.COMMAND, Priority.QUERY])
async def test_call_with_a_caller_goes_before_a_storm(urgent: Priority) -> None:
    order = await run_all(await used_up(), {Priority.BACKGROUND: 60, urgent: 3})
    assert max(index for index, priority in enumerate(order) if priority is urgent) <= 10


async def test_commands_go_before_queries_and_each_keeps_its_share() -> None:
    calls = {Priority.QUERY: 80, Priority.BACKGROUND: 80, Priority.COMMAND: 80}
    first = Counter((await run_all(await used_up(), calls))[:80])
    # Guaranteed are 28, 12 and 28 of 80 calls; the rest goes to the commands.
    assert first[Priority.COMMAND] >= 30
    assert first[Priority.QUERY] >= 8
    assert first[Priority.BACKGROUND] >= 20


async def test_low_priority_calls_come_last() -> None:
    order = await run_all(await used_up(), {Priority.LOW: 2, Priority.BACKGROUND: 30, Priority.COMMAND: 10})
    assert order[-2:] == [Priority.LOW, Priority.LOW]


async def test_unused_rate_is_available_to_every_priority() -> None:
    loop = asyncio.get_running_loop()
    queue, began = await used_up(), loop.time()
    await run_all(queue, {Priority.QUERY: 100})
    # With the guaranteed share alone it would take more than 6 s.
    assert loop.time() - began < 5


async def test_call_that_cannot_have_a_token_in_time_is_refused_at_once() -> None:
    loop = asyncio.get_running_loop()
    queue = await used_up()
    storm = asyncio.create_task(run_all(queue, {Priority.BACKGROUND: 60}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    refused = asyncio.create_task(queue.wait(Priority.BACKGROUND, deadline=loop.time() + 0.4))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert refused.done()
    assert not await refused
    assert len(await storm) == 60


async def test_cancelled_call_leaves_its_token_to_the_next_one() -> None:
    loop = asyncio.get_running_loop()
    queue = await used_up()
    waiting = [asyncio.create_task(queue.wait(Priority.COMMAND, deadline=loop.time() + 5)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in waiting[:19]:
        task.cancel()
    began = loop.time()
    assert await waiting[19]
    assert loop.time() - began < 10 / RATE + 4
    assert queue.expected_wait(Priority.COMMAND) <= 2 / RATE


async def test_postponed_commands_return_at_the_pace_of_the_rate_limit() -> None:
    queue = await used_up()
    times = [queue.postponement(Priority.BACKGROUND) for _ in range(200)]
    assert times == sorted(times)
    assert times[0] >= 1
    assert times[-1] - times[0] == pytest.approx(199 / RATE, abs=0.2)
