"""Benchmark: throughput of two instances of every service, gateways included, compared with one instance of each.

Each process of Nest gets the same small share of a core, so that Kafka, MongoDB and the load generator are not the
limit. Both environments run at the same time, and their rounds alternate. Afterwards it counts the records in each
partition, and measures the calls of many users beside one user or address that calls without a pause.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console

from shared.bus.topics import TOPICS
from tests.bench import command_line
from tests.bench.app import App
from tests.bench.command_line import Cells
from tests.bench.cpu_shares import CpuShares, NoCpuShares
from tests.bench.environment import SERVICES, environment
from tests.bench.measure import Call, Result, Round, closed_loops, cpu_seconds, open_loop

GOAL: Final = 1.6
"""Throughput of two instances, compared with that of one."""
INSTANCES: Final = (1, 2)
CONNECTIONS: Final = 48
"""For each gateway: so many that each instance is at its limit. With twice as many, one of each refuses calls."""
OTHERS_RATE: Final = 40
"""Calls a second of the users beside the hot key."""
OTHERS_CONNECTIONS: Final = 32
HOT_CONNECTIONS: Final = 16
FEWEST_RECORDS: Final = 500
"""Topics with fewer records say nothing about their division."""


@dataclass
class Measured:
    """Everything that a run has measured.

    Attributes:
        share: of a core, for each process of Nest.
        jobs: results by operation, one for each number of instances.
        busy: share of its limit that each process used, by operation and process, with two instances.
        partitions: records in each partition, by topic, with two instances.
        hot: latencies of the others by load beside them.
    """

    share: float
    jobs: dict[str, list[Result]] = field(default_factory=dict)
    busy: dict[str, dict[str, float]] = field(default_factory=dict)
    partitions: dict[str, list[int]] = field(default_factory=dict)
    hot: list[Result] = field(default_factory=list)

    def ratios(self) -> dict[str, float]:
        """Throughput of two instances divided by that of one, by operation."""
        return {job: two.per_second / one.per_second for job, (one, two) in self.jobs.items()}


class Nest:
    """One environment with its app and limits.

    Args:
        running: what ``environment`` yields.
        instances: of each service.
        options: the command line.
        shares: the limits of its processes.
    """

    def __init__(self, running: dict[str, Any], instances: int, options: argparse.Namespace, shares: CpuShares) -> None:
        self.running = running
        self.shares = shares
        self.connections = CONNECTIONS * instances
        self.app = App(running, self.connections)
        self._options = options
        self.calls: dict[str, Call] = {
            "send_magic_link": self.app.send_magic_link,
            "authenticate_user, code": self.app.authenticate_user_code,
            "authenticate_user, refresh": self.app.authenticate_user_refresh,
            "get_user": self.app.get_user,
        }

    @property
    def pids(self) -> dict[str, int]:
        """The processes of Nest by name."""
        return services_of(self.running)

    async def prepare(self, job: str) -> None:
        """Prepare a round without limits."""
        self.shares.lift()
        await self.app.connect()
        if job.endswith("code"):
            await self.app.prepare_codes(int(self._options.codes_per_second * self._options.seconds) + self.connections)
        else:
            await self.app.prepare_logins(self.connections)
        self.shares.limit()

    async def round(self, job: str) -> tuple[Round, dict[str, float]]:
        """Measure one round; return it with the share of its limit that each process used."""
        await self.prepare(job)
        before = cpu_seconds(self.pids)
        measured = await closed_loops(self.calls[job], self.connections, self._options.seconds)
        after = cpu_seconds(self.pids)
        granted = self._options.seconds * self._options.share
        return measured, {name: (after[name] - before[name]) / granted for name in after}


def services_of(running: dict[str, Any]) -> dict[str, int]:
    """The processes of Nest by name, of all those of an environment."""
    return {name: pid for name, pid in running["all_pids"].items() if name.partition("-")[0] in SERVICES}


async def run(options: argparse.Namespace, console: Console) -> Measured:
    """Start both environments and measure everything."""
    measured = Measured(options.share)
    async with AsyncExitStack() as stack:
        nests = []
        for instances in INSTANCES:
            console.print(f"starting an environment with {instances} of each service …")
            running = await stack.enter_async_context(environment(instances=instances, max_partitions=None))
            shares = stack.enter_context(CpuShares(services_of(running), options.share))
            nests.append(Nest(running, instances, options, shares))
        for job in nests[0].calls:
            await _compare(job, nests, measured, options, console)
        two = nests[-1]
        measured.partitions = await partitions_of(two.running["kafka"])
        await _measure_hot_keys(two, measured, options, console)
        for nest in nests:
            nest.app.close()
    return measured


async def _compare(
    job: str, nests: Sequence[Nest], measured: Measured, options: argparse.Namespace, console: Console
) -> None:
    rounds: list[list[Round]] = [[] for _ in nests]
    for number in range(options.runs + 1):
        for nest, instances, kept in zip(nests, INSTANCES, rounds, strict=True):
            one, busy = await nest.round(job)
            console.print(f"[dim]{job}, {instances} of each: {one.per_second:,.0f}/s[/dim]")
            if number:
                kept.append(one)
                measured.busy[job] = busy
    measured.jobs[job] = [
        Result.of(f"{job}, {instances} of each", nest.connections, kept)
        for nest, instances, kept in zip(nests, INSTANCES, rounds, strict=True)
    ]


async def partitions_of(bootstrap: str) -> dict[str, list[int]]:
    """The records in each partition of the topics with at least ``FEWEST_RECORDS``."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        counts = {}
        for topic, count in sorted((each.name, each.partitions) for each in TOPICS):
            partitions = [TopicPartition(topic, number) for number in range(count)]
            first, last = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
            records = [last[each] - first[each] for each in partitions]
            if sum(records) >= FEWEST_RECORDS:
                counts[topic] = records
        return counts
    finally:
        await consumer.stop()


async def _measure_hot_keys(nest: Nest, measured: Measured, options: argparse.Namespace, console: Console) -> None:
    """Measure others alone, beside a load that is spread over users, and beside the same load of one key."""
    await nest.prepare("get_user")
    nest.shares.lift()
    app, hot = nest.app, App(nest.running, HOT_CONNECTIONS)
    await hot.connect()
    await hot.prepare_logins(HOT_CONNECTIONS)

    loads: dict[str, Call | None] = {
        "nothing else": None,
        f"get_user of {HOT_CONNECTIONS} users without a pause": hot.get_user,
        f"get_user of one user without a pause, {HOT_CONNECTIONS} at a time": partial(hot.get_user_of, user=0),
        f"send_magic_link to {HOT_CONNECTIONS} addresses without a pause": hot.send_magic_link,
        f"send_magic_link to one address without a pause, {HOT_CONNECTIONS} at a time": partial(
            hot.send_magic_link_to, address="hot@example.com"
        ),
    }
    for name, call in loads.items():
        rounds = []
        for _ in range(options.runs):
            await app.connect()
            await hot.connect()
            beside = None if call is None else asyncio.create_task(closed_loops(call, HOT_CONNECTIONS, options.seconds))
            rounds.append(await open_loop(app.get_user, OTHERS_CONNECTIONS, rate=OTHERS_RATE, seconds=options.seconds))
            if beside is not None:
                await beside
        measured.hot.append(Result.of(name, None, rounds))
        console.print(f"[dim]others beside {name}: p99 {measured.hot[-1].p99:.1f} ms[/dim]")
    hot.close()


def tables(measured: Measured) -> dict[str, Cells]:
    """What was measured, as tables by name."""
    jobs = []
    for job, (one, two) in measured.jobs.items():
        name, used = max(measured.busy[job].items(), key=lambda each: each[1])
        rates = (f"{one.per_second:,.0f}", f"{two.per_second:,.0f}", f"{two.per_second / one.per_second:.2f}")
        jobs.append((job, *rates, f"{one.p50:.0f}", f"{two.p50:.0f}", f"{name} {100 * used:.0f} %"))
    division = []
    for topic, records in measured.partitions.items():
        mean = sum(records) / len(records)
        shares = (f"{max(records) / mean:.2f}", f"{min(records) / mean:.2f}")
        division.append((topic, str(len(records)), f"{sum(records):,}", *shares))
    hot = [(result.name, f"{result.p50:.1f}", f"{result.p99:.1f}") for result in measured.hot]
    return {
        "scale-out": (
            ("operation", "one of each /s", "two of each /s", "ratio", "p50 ms one", "p50 ms two", "used of its share"),
            jobs,
        ),
        "records-per-partition": (("topic", "partitions", "records", "most / mean", "fewest / mean"), division),
        "hot-keys": (("beside the others", "p50 ms of the others", "p99 ms"), hot),
    }


def main(arguments: Sequence[str] | None = None) -> Measured:
    """Run the benchmark, and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale_out", description=__doc__)
    parser.add_argument("--share", type=float, default=0.1, help="of a core, for each process of Nest (default 0.1)")
    command_line.add_options(parser, seconds=4.0)
    options = parser.parse_args(arguments)
    console = command_line.console()
    try:
        measured = uvloop.run(run(options, console))
    except NoCpuShares as refusal:
        parser.exit(1, f"{refusal}\n")
    ratios = measured.ratios()
    command_line.finish(options, console, tables(measured), {**asdict(measured), "ratios": ratios})
    for job, ratio in ratios.items():
        verdict = "reaches" if ratio >= GOAL else "misses"
        console.print(f"{job}: {ratio:.2f} times with two of each, {verdict} the goal of {GOAL}")
    return measured


if __name__ == "__main__":
    main()
