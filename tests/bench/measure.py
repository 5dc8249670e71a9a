"""How many a second, and how long each? Closed loops: every connection sends its next request when it has an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median

Call = Callable[[int], Awaitable[None]]
"""One operation of a connection, given by its number; raises when the answer is wrong."""


@dataclass(frozen=True)
class Round:
    """One run at one number of connections; latencies in milliseconds."""

    per_second: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Result:
    """The medians of several rounds."""

    name: str
    connections: int
    per_second: float
    p50: float
    p99: float


async def one_round(call: Call, connections: int, seconds: float) -> Round:
    """Run closed loops for so long."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def loop(number: int) -> None:
        while (began := time.perf_counter()) < end:
            await call(number)
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(loop(number) for number in range(connections)))
    took = time.perf_counter() - began
    latencies.sort()
    count = len(latencies)
    return Round(count / took, latencies[count // 2] * 1000, latencies[min(count - 1, count * 99 // 100)] * 1000)


def medians(name: str, connections: int, rounds: list[Round]) -> Result:
    """The middle of several rounds: these machines are noisy."""
    return Result(
        name,
        connections,
        median(round_.per_second for round_ in rounds),
        median(round_.p50 for round_ in rounds),
        median(round_.p99 for round_ in rounds),
    )
