"""Load generators, closed loops and an open loop, with their latencies in milliseconds; CPU time of processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

Call = Callable[[int], Awaitable[None]]
"""One call on a connection, given by its number; raises if the response is wrong."""


@dataclass(frozen=True)
class Round:
    """Rate and latencies, in milliseconds, of one round.

    Attributes:
        count: the calls.
    """

    per_second: float
    p50: float
    p99: float
    longest: float
    count: int = 0

    @classmethod
    def of(cls, latencies: Sequence[float], seconds: float) -> Round:
        """The round with these latencies, in seconds, over so many seconds."""
        ordered = sorted(1000 * latency for latency in latencies)
        count = len(ordered)
        return cls(count / seconds, ordered[count // 2], ordered[count * 99 // 100], ordered[-1], count)


@dataclass(frozen=True)
class Result:
    """Medians of several rounds of one operation.

    Attributes:
        connections: how many closed loops ran side by side; None for an open loop.
        rate: requests a second of an open loop; None for closed loops.
        cpu: milliseconds of CPU time per call, by process.
        memory: resident memory in MB after the last round, by process.
    """

    name: str
    connections: int | None
    per_second: float
    p50: float
    p99: float
    longest: float
    rate: int | None = None
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, connections: int | None, rounds: Sequence[Round]) -> Result:
        """The medians of these rounds."""
        return cls(
            name,
            connections,
            median(each.per_second for each in rounds),
            median(each.p50 for each in rounds),
            median(each.p99 for each in rounds),
            median(each.longest for each in rounds),
        )


async def closed_loops(call: Call, connections: int, seconds: float) -> Round:
    """Run closed loops: each connection sends its next request when it has the response to the last one."""
    latencies: list[float] = []
    began = time.perf_counter()
    end = began + seconds

    async def loop(number: int) -> None:
        while (sent := time.perf_counter()) < end:
            await call(number)
            latencies.append(time.perf_counter() - sent)

    await asyncio.gather(*(loop(number) for number in range(connections)))
    return Round.of(latencies, time.perf_counter() - began)


async def open_loop(call: Call, connections: int, *, rate: int, seconds: float) -> Round:
    """Send at a fixed rate, whether or not earlier requests were answered.

    A latency counts from the time at which the request was due, so that a stall shows in all requests that were due
    meanwhile (coordinated omission).
    """
    latencies: list[float] = []
    # In turn, so that no connection reaches the server's idle timeout.
    free: asyncio.Queue[int] = asyncio.Queue()
    for number in range(connections):
        free.put_nowait(number)
    began = time.perf_counter()

    async def one(due: float) -> None:
        number = await free.get()
        await call(number)
        latencies.append(time.perf_counter() - due)
        free.put_nowait(number)

    async with asyncio.TaskGroup() as group:
        for number in range(max(1, int(rate * seconds))):
            due = began + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            group.create_task(one(due))
    return Round.of(latencies, time.perf_counter() - began)


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """CPU time of processes so far, by name (proc(5): fields 14 and 15 of ``stat``)."""
    ticks = os.sysconf("SC_CLK_TCK")
    stats = {name: Path(f"/proc/{pid}/stat").read_text() for name, pid in pids.items()}
    return {name: sum(map(int, stat.rpartition(")")[2].split()[11:13])) / ticks for name, stat in stats.items()}


def cpu_of(before: Mapping[str, float], after: Mapping[str, float], count: int) -> dict[str, float]:
    """Milliseconds of CPU time per call between two readings of `cpu_seconds`, by process."""
    return {name: 1000 * (used - before[name]) / count for name, used in after.items()}


def resident_megabytes(pids: Mapping[str, int]) -> dict[str, float]:
    """Resident memory of processes, by name (proc(5): field 2 of ``statm``, in pages)."""
    page = os.sysconf("SC_PAGE_SIZE")
    return {name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page / 1e6 for name, pid in pids.items()}
