"""Benchmark: the operations in a large deployment, compared with a small one.

Two environments run at the same time. Their databases are filled with copies of rows that the services wrote, with new
IDs and with times spread over their retention: few in one, as many as the options say in the other. Then the rounds of
both alternate, so that both meet the same noise.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle
from statistics import median
from typing import Any, Final

import uvloop
from pymongo import AsyncMongoClient
from rich.console import Console
from rich.progress import Progress

from tests.bench import command_line
from tests.bench.app import App
from tests.bench.command_line import Cells
from tests.bench.environment import environment
from tests.bench.measure import Call, Round, closed_loops, cpu_seconds, open_loop

GOAL: Final = 1.2
"""CPU time of a call in the large deployment, compared with that in the small one."""
CONNECTIONS: Final = 8
SMALL: Final = 20_000
"""Copies in each collection of the small deployment, so that every list has a page of both."""
LIMIT: Final = 5
"""Entries on a page."""
SAMPLES: Final = 50
"""Rows of which copies are made."""
STEP: Final = 100_000
"""Copies that one command makes."""
RARE: Final = 1_000
"""One of so many audit entries is refused, and one of so many deliveries has failed."""
SOAK_RATE: Final = 40
"""Calls a second of the soak."""
RENEWAL_SECONDS: Final = 600.0
"""Interval at which the soak opens connections and refreshes tokens anew."""
FILLED_AT_ONCE: Final = 2
"""Collections that are filled at the same time; a command takes one core."""
DAY_MILLISECONDS: Final = 86_400_000
REQUESTS: Final = {
    "list_audit_entries": {},
    "list_audit_entries, refused": {"outcome": "refused"},
    "list_audit_entries, refused refreshes": {"outcome": "refused", "action": "refresh"},
    "list_deliveries, failed": {"state": "failed"},
    "list_deliveries, failed magic links of a client": {"state": "failed", "template": "magic-link"},
    "list_users": {},
}
"""Bodies of the lists for operators."""


@dataclass(frozen=True)
class Copies:
    """How a collection is filled.

    Attributes:
        database: of the service.
        collection: its name.
        size: the option that says how many copies.
        ids: fields that get a value of their own.
        times: fields that get a time in the days before now.
        changed: further fields, as expressions of an aggregation.
    """

    database: str
    collection: str
    size: str
    ids: tuple[str, ...] = ("_id",)
    times: Mapping[str, float] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)


def _mostly(common: str, rare: str) -> dict[str, Any]:
    return {"$cond": [{"$lt": [{"$rand": {}}, 1 / RARE]}, rare, common]}


FILLED: Final = (
    Copies("nest_auth", "users", "users", times={"createdAt": 365}),
    Copies("nest_auth", "identifiers", "users", ("_id", "identifierValue", "userId"), {"createdAt": 365}),
    Copies("nest_auth", "familiars", "users"),
    Copies("nest_auth", "refresh_tokens", "users", ("_id", "userId")),
    Copies("nest_auth", "authorizations", "codes", ("_id", "identifierValue", "codeChallenge")),
    Copies(
        "nest_auth",
        "audit",
        "audit",
        ("_id", "userId", "sessionId"),
        {"at": 90},
        {"outcome": _mostly("done", "refused")},
    ),
    Copies("nest_auth", "inbox", "inbox", times={"at": 8}),
    Copies("nest_mailer", "inbox", "users", times={"at": 8}),
    Copies("nest_billing", "inbox", "users", times={"at": 8}),
    Copies("nest_billing", "subscriptions", "users", ("_id", "userId", "stpSubscriptionId", "stpCustomerId")),
    Copies(
        "nest_mailer",
        "deliveries",
        "users",
        ("_id", "orderId", "recipientHash", "messageId"),
        {"createdAt": 30, "updatedAt": 30},
        {"state": _mostly("handed_over", "failed")},
    ),
)


async def fill(url: str, sizes: Mapping[str, int], progress: Progress) -> dict[str, int]:
    """Fill the databases of an environment; return the numbers of documents by collection."""
    # Without acknowledgement by the journal, since nothing of it has to survive.
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url, w=1, journal=False)
    task = progress.add_task("filling", total=sum(sizes[copies.size] for copies in FILLED))
    counts: dict[str, int] = {}
    turns = asyncio.Semaphore(FILLED_AT_ONCE)

    async def fill_one(copies: Copies) -> None:
        collection = client[copies.database][copies.collection]
        samples = [row["_id"] async for row in collection.find({}, {"_id": 1}).limit(SAMPLES)]
        assert samples, f"no row to copy in {copies.collection}"
        for start in range(0, sizes[copies.size], STEP):
            count = min(STEP, sizes[copies.size] - start)
            async with turns:
                await (await collection.aggregate(_copying(copies, samples, count))).to_list()
            progress.advance(task, count)
        name = f"{copies.database.removeprefix('nest_')}.{copies.collection}"
        counts[name] = await collection.estimated_document_count()

    async with asyncio.TaskGroup() as group:
        for copies in FILLED:
            group.create_task(fill_one(copies))
    await client.close()
    return dict(sorted(counts.items()))


def _copying(copies: Copies, samples: Sequence[Any], count: int) -> list[dict[str, Any]]:
    each = -(-count // len(samples))
    random: dict[str, Any] = {"$toString": {"$toLong": {"$multiply": [{"$rand": {}}, 1 << 62]}}}
    now = int(time.time() * 1000)
    return [
        {"$match": {"_id": {"$in": list(samples)}}},
        {"$set": {"copy": {"$range": [0, each]}}},
        {"$unwind": "$copy"},
        {
            "$set": {
                # Fields that a row lacks stay missing.
                **{
                    name: {
                        "$cond": [
                            {"$eq": [{"$type": f"${name}"}, "string"]},
                            {"$concat": [{"$substrCP": [f"${name}", 0, 12]}, random, random]},
                            f"${name}",
                        ]
                    }
                    for name in copies.ids
                },
                **{
                    name: {
                        "$toDate": {
                            "$toLong": {
                                "$subtract": [now, {"$multiply": [{"$rand": {}}, days * DAY_MILLISECONDS]}],
                            }
                        }
                    }
                    for name, days in copies.times.items()
                },
                **copies.changed,
            }
        },
        {"$unset": "copy"},
        {"$merge": {"into": copies.collection, "whenMatched": "fail", "whenNotMatched": "insert"}},
    ]


@dataclass
class Row:
    """One operation in both deployments.

    Attributes:
        small: its rounds in the small one.
        large: its rounds in the large one.
        cpu: milliseconds of CPU time per call in each, of all processes but the driver.
    """

    name: str
    small: Round
    large: Round
    cpu: tuple[float, float]

    @property
    def ratio(self) -> float:
        """CPU time per call in the large deployment, divided by that in the small one."""
        return self.cpu[1] / self.cpu[0]


@dataclass
class Growth:
    """Everything that a run has measured.

    Attributes:
        options: of the command line.
        documents: in the large deployment, by collection.
        fill_seconds: how long they took.
        rows: after the fill.
        soaked: after the soak; empty without one.
    """

    options: dict[str, Any]
    documents: dict[str, int] = field(default_factory=dict)
    fill_seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    soaked: list[Row] = field(default_factory=list)


class Nest:
    """One deployment with its app."""

    def __init__(self, running: dict[str, Any], options: argparse.Namespace) -> None:
        self.running = running
        self.app = App(running, CONNECTIONS * 4)
        self._options = options

    def calls(self) -> dict[str, Call]:
        """The measured operations."""
        app = self.app
        return {
            "send_magic_link": app.send_magic_link,
            "authenticate_user, code": app.authenticate_user_code,
            "authenticate_user, refresh": app.authenticate_user_refresh,
            "get_user": app.get_user,
            "get_subscription_status": app.get_subscription_status,
            "list_news_items": app.list_news_items,
            **{
                name: _listing(app, name.partition(",")[0], {**body, "limit": LIMIT}, self.running["internal_key"])
                for name, body in REQUESTS.items()
            },
        }

    async def prepare(self) -> None:
        """Log users in and start trials, so that there is something of everything."""
        await self.app.connect()
        await self.app.prepare_logins(CONNECTIONS * 4)
        await self.app.prepare_subscribers(CONNECTIONS)
        for number in range(CONNECTIONS):
            await self.app.authenticate_user_refresh(number)

    async def round(self, name: str) -> tuple[Round, float]:
        """Measure one round; return it with the CPU time per call in milliseconds."""
        if name.endswith("code"):
            await self.app.prepare_codes(int(self._options.codes_per_second * self._options.seconds) + CONNECTIONS)
        await self.app.connect()
        pids = {label: pid for label, pid in self.running["all_pids"].items() if label != "driver"}
        before = cpu_seconds(pids)
        measured = await closed_loops(self.calls()[name], CONNECTIONS, self._options.seconds)
        used = sum(cpu_seconds(pids).values()) - sum(before.values())
        return measured, 1000 * used / max(1, measured.count)

    async def soak(self, seconds: float) -> None:
        """Keep a moderate load going."""
        calls = cycle(
            (
                self.app.send_magic_link,
                self.app.get_user,
                self.app.authenticate_user_refresh,
                self.app.list_news_items,
            )
        )

        async def one(number: int) -> None:
            await next(calls)(number)

        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await self.app.connect()
            await open_loop(one, CONNECTIONS * 4, rate=SOAK_RATE, seconds=min(left, RENEWAL_SECONDS))
            await self.app.renew()


def _listing(app: App, method: str, body: Mapping[str, Any], internal_key: str) -> Call:
    async def call(number: int) -> None:
        await app.call_internally(number, method, body, internal_key)

    return call


@asynccontextmanager
async def both(options: argparse.Namespace, console: Console) -> AsyncIterator[tuple[Nest, Nest]]:
    """Run a small and a large deployment."""
    async with AsyncExitStack() as stack:
        nests = []
        for name in ("small", "large"):
            console.print(f"starting the {name} deployment …")
            running = await stack.enter_async_context(environment(mongo_cache_gb=options.cache_gb))
            nests.append(Nest(running, options))
            await nests[-1].prepare()
        yield nests[0], nests[1]
        for nest in nests:
            nest.app.close()


async def compare(nests: tuple[Nest, Nest], options: argparse.Namespace, console: Console) -> list[Row]:
    """Measure every operation in both deployments, in alternating rounds; the first pair warms up."""
    rows = []
    for name in nests[0].calls():
        pairs = [[await nest.round(name) for nest in nests] for _ in range(options.runs + 1)][1:]
        cpu = [median(pair[place][1] for pair in pairs) for place in (0, 1)]
        rounds = [sorted((pair[place][0] for pair in pairs), key=lambda each: each.p50) for place in (0, 1)]
        small, large = (each[len(each) // 2] for each in rounds)
        rows.append(Row(name, small, large, (cpu[0], cpu[1])))
        console.print(f"[dim]{name}: {cpu[0]:.2f} and {cpu[1]:.2f} ms, {rows[-1].ratio:.2f}[/dim]")
    return rows


async def run(options: argparse.Namespace, console: Console) -> Growth:
    """Start both deployments, fill one and measure both."""
    growth = Growth({name: value for name, value in vars(options).items() if name != "json"})
    sizes = {name: getattr(options, name) for name in ("users", "codes", "inbox", "audit")}
    async with both(options, console) as nests:
        began = time.monotonic()
        with Progress(console=console) as progress:
            few = {name: min(SMALL, size) for name, size in sizes.items()}
            await fill(nests[0].running["mongo"], few, progress)
            growth.documents = await fill(nests[1].running["mongo"], sizes, progress)
        growth.fill_seconds = time.monotonic() - began
        # MongoDB writes what was filled to its files, which would slow the first rounds down.
        await asyncio.sleep(options.settle)
        growth.rows = await compare(nests, options, console)
        if options.soak:
            # A failure of the long soak must not lose them.
            command_line.finish(options, console, tables(growth), asdict(growth))
            console.print(f"soaking both deployments for {options.soak} minutes …")
            await asyncio.gather(*(nest.soak(60 * options.soak) for nest in nests))
            growth.soaked = await compare(nests, options, console)
    return growth


def tables(growth: Growth) -> dict[str, Cells]:
    """What was measured, as tables by name."""
    head = ("operation", "CPU ms small", "CPU ms large", "ratio", "p50 ms small", "p50 ms large")
    documents = [(name, f"{count:,}") for name, count in growth.documents.items()]
    named: dict[str, Cells] = {"growth-documents": (("collection", "documents"), documents)}
    for name, rows in (("growth", growth.rows), ("growth-soaked", growth.soaked)):
        cells = [
            (
                row.name,
                *(f"{each:.2f}" for each in row.cpu),
                f"{row.ratio:.2f}",
                *(f"{each.p50:.1f}" for each in (row.small, row.large)),
            )
            for row in rows
        ]
        if cells:
            named[name] = (head, cells)
    return named


def main(arguments: Sequence[str] | None = None) -> Growth:
    """Run the benchmark, and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    option: Any = parser.add_argument
    option("--users", type=int, default=1_000_000, help="users with their sessions and deliveries (default 1,000,000)")
    option("--codes", type=int, default=100_000, help="open codes (default 100,000)")
    option("--inbox", type=int, default=3_000_000, help="inbox rows of auth (default 3,000,000)")
    option("--audit", type=int, default=3_000_000, help="audit entries (default 3,000,000)")
    option("--soak", type=float, default=0.0, metavar="MINUTES", help="load before a second measurement (default 0)")
    option("--settle", type=float, default=60.0, help="seconds between the fill and the rounds (default 60)")
    option("--cache-gb", type=float, default=1.0, help="MongoDB's cache in GiB, of each deployment (default 1)")
    command_line.add_options(parser, seconds=3.0)
    options = parser.parse_args(arguments)
    console = command_line.console()
    growth = uvloop.run(run(options, console))
    command_line.finish(options, console, tables(growth), asdict(growth))
    for row in growth.soaked or growth.rows:
        verdict = "reaches" if row.ratio <= GOAL else "misses"
        console.print(f"{row.name}: {row.ratio:.2f} times its CPU time, {verdict} the goal of {GOAL}")
    return growth


if __name__ == "__main__":
    main()
