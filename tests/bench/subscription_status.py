"""Benchmark of the subscription status: with few and many records, and during a storm of renewals.

- ``billing over Kafka``: calls of billing alone, without a gateway, for random users.
- ``gateway``: requests of users with access tokens.
- ``heartbeat``: the same of the oldest API version, calm and while billing reads changed subscriptions from Stripe at
  the pace of an account in test mode.

Read the ratios, and compare figures of one run only. CPU time per answer depends least on what else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.table import Table

from services.gateway.rpc_client import RpcClient
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.inbox import DONE
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.bus.record_macs import RecordMacs
from shared.ids import new_message_id
from shared.messages.billing.subscriptions import GetSubscriptionStatus
from shared.mongo import connect, database
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.bench.app import App
from tests.bench.environment import environment
from tests.bench.measure import Call, Result, closed_loops, cpu_seconds, open_loop

CALLERS: Final = (1, 8, 64)
SUBSCRIBERS: Final = 64
BATCH: Final = 10_000
"""Records in one insertion."""
PACE: Final = 20
"""Calls to Stripe a second: the default in test mode."""
EVENTS: Final = 200
"""Webhooks a second during the storm."""
SERVICES: Final = ("gateway", "billing")
STORM: Final = 416
"""Subscriptions that renew at once, with four events each."""
GOAL: Final = 2_500
"""Answers of billing a second."""
MAX_SLOWDOWN: Final = 1.3
"""Goal: how much slower an answer may be with all records than with few."""


class Bench:
    """Measures one environment.

    Args:
        running: what ``environment`` yields.
        options: the command line.
        console: where progress is printed.
    """

    def __init__(self, running: dict[str, Any], options: argparse.Namespace, console: Console) -> None:
        self._running = running
        self._options = options
        self._console = console
        self._users: list[str] = []
        self.results: list[Result] = []
        self.cpu: list[dict[str, float]] = []
        """For each result, microseconds of CPU per answer of the services."""

    async def run(self) -> None:
        """Measure every row."""
        app = App(self._running, SUBSCRIBERS)
        await app.prepare_subscribers(SUBSCRIBERS)
        await app.connect()
        async with self._billing() as call:
            for records in (0, self._options.records):
                await self._insert(records)
                for callers in CALLERS:
                    await self._measure(f"billing over Kafka, {records:,} more records", call, callers)
                    await self._measure(f"gateway, {records:,} more records", app.get_subscription_status, callers)
        await self._measure("heartbeat, calm", app.heartbeat, 8)
        storm = asyncio.create_task(self._storm(app))
        await self._measure("heartbeat, storm", app.heartbeat, 8)
        storm.cancel()
        await asyncio.gather(storm, return_exceptions=True)
        app.close()

    async def _measure(self, name: str, call: Call, callers: int) -> None:
        # A warm-up round first.
        await closed_loops(call, callers, self._options.seconds)
        before = self._cpu_seconds()
        measured = await closed_loops(call, callers, self._options.seconds)
        answers = measured.per_second * self._options.seconds
        after = self._cpu_seconds()
        self.cpu.append({service: 1e6 * (after[service] - before[service]) / answers for service in before})
        self.results.append(Result.of(name, callers, [measured]))
        self._console.print(f"[dim]{name}, {callers} callers: {measured.per_second:,.0f}/s[/dim]")

    def _cpu_seconds(self) -> dict[str, float]:
        """CPU time of the two services so far."""
        # A gateway is named after its port.
        pids = {name.partition("-")[0]: pid for name, pid in self._running["pids"].items()}
        return cpu_seconds({name: pids[name] for name in SERVICES})

    async def _storm(self, app: App) -> None:
        """Send the events of the renewals, over connections that the heartbeats do not use."""
        names = iter([f"sub_storm{each}" for each in range(STORM) for _ in range(4)])

        async def send(number: int) -> None:
            await app.renewal(32 + number, next(names))

        await open_loop(send, 32, rate=EVENTS, seconds=4 * STORM / EVENTS)

    @asynccontextmanager
    async def _billing(self) -> AsyncIterator[Call]:
        sealer = Sealer(parse_keys(self._running["sealing_keys"]))
        kafka, macs = KafkaConnection(self._running["kafka"]), RecordMacs(sealer, prefix="")
        producer = Producer(kafka, macs=macs, client_id="bench")
        client = RpcClient(producer, sealer, macs, kafka=kafka, prefix="", seconds=10, limit=1_000)
        await producer.start()
        await client.start()

        async def call(_number: int) -> None:
            query = GetSubscriptionStatus(user_id=random.choice(self._users))
            envelope = Envelope(
                id=new_message_id(),
                wire=query.wire,
                topic=query.topic,
                key="",
                body=encode(query, sealer),
                time=unix_milliseconds(),
            )
            assert (await client.call(envelope)).kind == DONE

        try:
            yield call
        finally:
            await client.stop()
            await producer.stop()

    async def _insert(self, count: int) -> None:
        """Insert copies of a subscriber's record, each of a user of its own, and choose users to ask for."""
        client = connect(self._running["mongo"], application="bench", timeout=60)
        records = database(client, "nest_billing")["subscriptions"]
        first = await records.find_one({})
        assert first is not None
        began = time.monotonic()
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            await records.insert_many([_copy(first, number) for number in numbers], ordered=False)
        if count:
            self._console.print(f"[dim]{count:,} records inserted in {time.monotonic() - began:.0f} s[/dim]")
        sample = await records.aggregate([{"$sample": {"size": 2_000}}, {"$project": {"userId": 1}}])
        self._users = [each["userId"] async for each in sample]
        await client.close()


def _copy(record: dict[str, Any], number: int) -> dict[str, Any]:
    # Random, as Nest's and Stripe's IDs are, so that the copies are spread over the indexes.
    unique = f"{random.getrandbits(64):016x}{number}"
    return {
        **record,
        "_id": f"sub_{unique}",
        "userId": f"user_{unique}",
        "stpSubscriptionId": f"sub_stp_{unique}",
        "stpCustomerId": f"cus_{unique}",
    }


def slowdowns(results: Sequence[Result]) -> dict[str, float]:
    """For each pair of rows of the same callers, the rate of the first divided by that of the second."""
    rates: dict[tuple[str, int | None], list[float]] = {}
    for each in results:
        rates.setdefault((each.name.partition(",")[0], each.connections), []).append(each.per_second)
    return {f"{name}, {callers} callers": first / second for (name, callers), (first, second) in rates.items()}


def table(results: Sequence[Result], cpu: Sequence[dict[str, float]]) -> Table:
    """The results beside their goals."""
    shown = Table(title="Subscription status on this machine", title_justify="left")
    for column in ("operation", "callers", "a second", "of the goal", "p50 ms", "p99 ms", "µs gateway", "µs billing"):
        shown.add_column(column, justify="left" if column == "operation" else "right")
    for each, used in zip(results, cpu, strict=True):
        goal = f"{each.per_second / GOAL:.2f}" if each.name.startswith("billing") else ""
        rates = f"{each.per_second:,.0f}", goal, f"{each.p50:.1f}", f"{each.p99:.1f}"
        shown.add_row(each.name, str(each.connections), *rates, *(f"{used[name]:.0f}" for name in SERVICES))
    return shown


async def run(options: argparse.Namespace, console: Console) -> Bench:
    """Start the environment and measure every row."""
    console.print("starting Kafka, MongoDB and the five services …")
    async with environment({"NEST_STRIPE_CALLS_PER_SECOND": str(PACE)}) as running:
        bench = Bench(running, options, console)
        await bench.run()
    return bench


def main(arguments: Sequence[str] | None = None) -> list[Result]:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.subscription_status", description=__doc__)
    option: Any = parser.add_argument
    option("--records", type=int, default=1_000_000, help="subscriptions of other users (default 1,000,000)")
    option("--seconds", type=float, default=4.0, help="duration of a round (default 4)")
    option("--json", type=Path, metavar="FILE", help="write the results to this file too")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)
    bench = uvloop.run(run(options, console))
    results = bench.results
    console.print(table(results, bench.cpu))
    for name, ratio in slowdowns(results).items():
        console.print(f"{name}: {ratio:.2f} times slower in the second row (goal: below {MAX_SLOWDOWN})")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    return results


if __name__ == "__main__":
    main()
