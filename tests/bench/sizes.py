"""What each operation costs: bytes in MongoDB by collection, bytes on Kafka by topic, CPU time by process.

It performs each operation many times in an environment of its own and reads what has grown: a collection's files after
a checkpoint (compressed, with its indexes), the segments of a topic, the CPU time of each process less what it uses
when idle. `tests.bench.scale` computes from the results what a million users need.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop
from pymongo import AsyncMongoClient
from rich.console import Console
from rich.table import Table

from tests.bench.app import App
from tests.bench.environment import environment
from tests.bench.measure import cpu_seconds

CONNECTIONS: Final = 8
QUIET_SECONDS: Final = 12.0
"""Nothing more is written for so long: inbox rows lose their messages up to about ten seconds after a commit."""
SETTLE_SECONDS: Final = 180.0
IDLE_SECONDS: Final = 10.0
SETTINGS: Final = {"NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS": "100/1m"}
"""Two links to one address within a minute."""
EXAMPLES: Final = """\
examples:
  python -m tests.bench.sizes
  python -m tests.bench.sizes --count 200 --json sizes.json
"""


@dataclass(frozen=True)
class Cost:
    """What one operation costs on average.

    Attributes:
        name: the operation.
        collections: bytes on MongoDB's disk, by `<service>.<collection>`.
        indexes: the part of these bytes that indexes take.
        topics: bytes in Kafka's segments, before replication, by topic.
        cpu: milliseconds of CPU time, by process.
    """

    name: str
    collections: dict[str, float] = field(default_factory=dict)
    indexes: dict[str, float] = field(default_factory=dict)
    topics: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Reading:
    collections: Counter[str]
    indexes: Counter[str]
    topics: Counter[str]


class Sizes:
    """Measures operations, one after the other, in one environment.

    Args:
        running: what ``environment`` yields.
        count: how often each operation is performed.
        console: where progress is printed.
    """

    def __init__(self, running: dict[str, Any], count: int, console: Console) -> None:
        self._folder = Path(running["mails"]).parent
        self._count = count
        self._console = console
        self._mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(running["mongo"])
        self._pids = {name.partition("-")[0]: pid for name, pid in running["pids"].items()}
        self._pids |= {
            name: json.loads((self._folder / "pids" / f"{name}.json").read_text())["pid"] for name in ("kafka", "mongo")
        }
        self._idle: dict[str, float] = {}
        self.costs: list[Cost] = []

    async def close(self) -> None:
        """Disconnect."""
        await self._mongo.close()

    async def rest(self) -> None:
        """Measure what every process uses when idle."""
        await self._settled()
        before = cpu_seconds(self._pids)
        await asyncio.sleep(IDLE_SECONDS)
        self._idle = {name: (after - before[name]) / IDLE_SECONDS for name, after in cpu_seconds(self._pids).items()}

    async def measure(self, name: str, act: Callable[[int], Awaitable[None]]) -> None:
        """Perform an operation ``count`` times over several connections and add its cost."""
        before, cpu, started = await self._settled(), cpu_seconds(self._pids), time.monotonic()
        rest = iter(range(self._count))

        async def loop(number: int) -> None:
            for _ in rest:
                await act(number)

        await asyncio.gather(*(loop(number) for number in range(CONNECTIONS)))
        after = await self._settled()
        seconds = time.monotonic() - started
        self.costs.append(
            Cost(
                name,
                collections=self._each(after.collections, before.collections),
                indexes=self._each(after.indexes, before.indexes),
                topics=self._each(after.topics, before.topics),
                cpu={
                    process: max(0.0, 1000 * (used - cpu[process] - self._idle[process] * seconds) / self._count)
                    for process, used in cpu_seconds(self._pids).items()
                },
            )
        )
        self._console.print(f"[dim]{name}: {self._count} in {seconds:.0f} s[/dim]")

    def _each(self, after: Counter[str], before: Counter[str]) -> dict[str, float]:
        """Bytes that each operation has added; nothing that has not grown."""
        return {name: (size - before[name]) / self._count for name, size in after.items() if size > before[name]}

    async def _settled(self) -> _Reading:
        """What is stored, once nothing has been added to Kafka or MongoDB for a while."""
        end = time.monotonic() + SETTLE_SECONDS
        counts, since = await self._counts(), time.monotonic()
        while time.monotonic() < min(end, since + QUIET_SECONDS):
            await asyncio.sleep(1)
            if (now := await self._counts()) != counts:
                counts, since = now, time.monotonic()
        # A checkpoint: the sizes of files are those of the last one.
        await self._mongo.admin.command("fsync")
        collections, indexes = Counter[str](), Counter[str]()
        for name in await self._databases():
            database = self._mongo[name]
            for collection in await database.list_collection_names():
                cursor = await database[collection].aggregate([{"$collStats": {"storageStats": {}}}])
                stats = (await cursor.to_list())[0]["storageStats"]
                key = f"{name.removeprefix('nest_')}.{collection}"
                # Without the blocks that are free for later documents and keys.
                indexes[key] = stats["totalIndexSize"] - sum(map(_free, stats["indexDetails"].values()))
                collections[key] = stats["storageSize"] - _free(stats["wiredTiger"]) + indexes[key]
        return _Reading(collections, indexes, self._topics())

    async def _counts(self) -> tuple[int, int]:
        documents = [
            await self._mongo[name][collection].estimated_document_count()
            for name in await self._databases()
            for collection in await self._mongo[name].list_collection_names()
        ]
        return sum(documents), self._topics().total()

    async def _databases(self) -> list[str]:
        return [name for name in await self._mongo.list_database_names() if name.startswith("nest_")]

    def _topics(self) -> Counter[str]:
        sizes = Counter[str]()
        for segment in (self._folder / "kafka").glob("*/*.log"):
            topic = segment.parent.name.rpartition("-")[0]
            # Announcements of instances come by time, not by operation.
            if topic not in ("instances", "__cluster_metadata"):
                sizes[topic] += segment.stat().st_size
        return sizes

    async def subscriptions(self) -> list[str]:
        """The IDs of all subscriptions in Stripe."""
        rows = self._mongo["nest_billing"]["subscriptions"].find({}, {"stpSubscriptionId": 1})
        return [row["stpSubscriptionId"] async for row in rows]


async def run(options: argparse.Namespace, console: Console) -> list[Cost]:
    """Start the environment and measure every operation."""
    console.print("starting Kafka, MongoDB and the five services …")
    count = options.count
    async with environment(SETTINGS) as running:
        sizes, app = Sizes(running, count, console), App(running, CONNECTIONS)
        await app.connect()
        await app.prepare_logins(CONNECTIONS)
        await app.prepare_subscribers(CONNECTIONS)
        await sizes.rest()
        await sizes.measure("send_magic_link, new address", app.send_magic_link)
        await app.prepare_codes(count)
        await app.connect()
        await sizes.measure("authenticate_user, code of a new user", app.authenticate_user_code)
        await app.connect()
        await sizes.measure("send_magic_link, known address", app.send_magic_link_again)
        await app.collect_codes()
        await app.connect()
        await sizes.measure("authenticate_user, code of a known user", app.authenticate_user_code)
        await app.connect()
        users = itertools.cycle(range(count))
        for name in ("authenticate_user, first refresh", "authenticate_user, refresh"):
            await sizes.measure(name, lambda number: app.authenticate_user_refresh_of(number, next(users)))
            await app.connect()
        await sizes.measure("get_user", app.get_user)
        await app.connect()
        await sizes.measure("get_subscription_status", app.get_subscription_status)
        await app.connect()
        await sizes.measure("create_trial_and_magic_link, new user", app.create_trial)
        await app.connect()
        subscriptions = itertools.cycle(await sizes.subscriptions())
        await sizes.measure("Stripe event, applied", lambda number: app.renewal(number, next(subscriptions)))
        app.close()
        await sizes.close()
    return sizes.costs


def _free(file: Mapping[str, Any]) -> int:
    free: int = file["block-manager"]["file bytes available for reuse"]
    return free


def table(costs: Sequence[Cost]) -> Table:
    """All costs, one row for each operation."""
    shown = Table(title="Cost of one operation", title_justify="left")
    for column in ("operation", "MongoDB, bytes", "Kafka, bytes", "CPU, ms"):
        shown.add_column(column, justify="left" if column == "operation" else "right")
    for cost in costs:
        shown.add_row(cost.name, *(_parts(each) for each in (cost.collections, cost.topics)), _parts(cost.cpu, 2))
    return shown


def _parts(values: Mapping[str, float], digits: int = 0) -> str:
    largest = sorted(values.items(), key=lambda item: -item[1])
    shown = "\n".join(f"{name} {value:,.{digits}f}" for name, value in largest if value >= 10**-digits)
    return f"[bold]{sum(values.values()):,.{digits}f}[/bold]\n{shown}"


def main(arguments: Sequence[str] | None = None) -> list[Cost]:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.sizes",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=2000, help="repetitions of each operation (default 2000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file too")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)
    costs = uvloop.run(run(options, console))
    console.print(table(costs))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")
    return costs


if __name__ == "__main__":
    main()
