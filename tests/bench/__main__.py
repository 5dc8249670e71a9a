"""Benchmark: requests per second and latencies of Nest beside the floors of the machine.

Kafka, MongoDB, the five services, the Stripe double and the load generator share this machine. Read the ratios, and
compare figures of one run only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import floors, record_macs
from tests.bench.app import App
from tests.bench.environment import environment
from tests.bench.measure import Call, Result, Round, closed_loops, open_loop

FLOOR: Final = "floor: "
RATE: Final = 500
"""Requests a second of an open loop."""
OPEN_LOOP_CONNECTIONS: Final = 64
BEST_PEER: Final = {
    "send_magic_link": 1320,
    "authenticate_user, code": 535,
    "authenticate_user, refresh": 629,
    "get_user": 2129,
    "get_subscription_status": 482,
}
"""Requests a second of the best of five comparable systems at 32 connections on two cores, with fsync."""
EXAMPLES: Final = """\
examples:
  python -m tests.bench
  python -m tests.bench --only refresh get_user --runs 5
  python -m tests.bench --seconds 1 --runs 1 --json results.json
"""

Prepare = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """An operation of the table.

    Attributes:
        prepare: runs before each round.
        rate: requests a second of an open loop; None for closed loops.
    """

    name: str
    call: Call
    prepare: Prepare | None = None
    rate: int | None = None


class Bench:
    """Measures one row after the other.

    Args:
        options: the command line.
        console: where progress is printed.
    """

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self._options = options
        self._console = console
        self.results: list[Result] = []

    async def measure(self, row: Row) -> None:
        """Run one warm-up round and then the measured rounds, for each number of connections."""
        if self._options.only and not any(word in row.name for word in self._options.only):
            return
        for connections in self._options.connections if row.rate is None else [None]:
            rounds = [await self._round(row, connections) for _ in range(self._options.runs + self._options.warm_up)]
            self.results.append(Result.of(row.name, connections, rounds[self._options.warm_up :]))

    async def _round(self, row: Row, connections: int | None) -> Round:
        if row.prepare is not None:
            await row.prepare()
        if row.rate is None or connections is not None:
            measured = await closed_loops(row.call, connections or 1, self._options.seconds)
        else:
            measured = await open_loop(row.call, OPEN_LOOP_CONNECTIONS, rate=row.rate, seconds=self._options.seconds)
        load = f"{row.rate}/s" if connections is None else f"{connections} connections"
        self._console.print(f"[dim]{row.name}, {load}: {measured.per_second:,.0f}/s[/dim]")
        return measured


async def run(options: argparse.Namespace, console: Console) -> list[Result]:
    """Start the environment and measure every row."""
    console.print("starting Kafka, MongoDB and the five services …")
    bench = Bench(options, console)
    async with environment() as running:
        async with floors.kafka(running["kafka"]) as kafka, floors.mongo(running["mongo"]) as mongo:
            for name, call in {**kafka, **mongo}.items():
                await bench.measure(Row(FLOOR + name, call))
            await bench.measure(Row(f"{FLOOR}record onto Kafka, open loop", kafka["record onto Kafka"], rate=RATE))
        app = App(running, max(OPEN_LOOP_CONNECTIONS, *options.connections))
        for row in _rows(app, users=max(options.connections), codes=options.codes):
            await bench.measure(row)
        app.close()
    return bench.results


def _rows(app: App, *, users: int, codes: int) -> Sequence[Row]:
    def prepared(prepare: Prepare | None = None) -> Prepare:
        async def connected() -> None:
            if prepare is not None:
                await prepare()
            await app.connect()

        return connected

    logins = prepared(partial(app.prepare_logins, users))
    return (
        Row("send_magic_link", app.send_magic_link, prepared()),
        Row("authenticate_user, code", app.authenticate_user_code, prepared(partial(app.prepare_codes, codes))),
        Row("authenticate_user, refresh", app.authenticate_user_refresh, logins),
        Row("get_user", app.get_user, logins),
        Row("get_subscription_status", app.get_subscription_status, prepared(partial(app.prepare_subscribers, users))),
        Row("webhook ingress", app.webhook, prepared()),
        Row("webhook ingress, open loop", app.webhook, prepared(), rate=RATE),
    )


def table(results: Sequence[Result]) -> Table:
    """The results beside the floors and the best peer."""
    shown = Table(title="Nest on this machine, medians", title_justify="left")
    for column in ("operation", "connections", "a second", "p50 ms", "p99 ms", "longest ms", "of echo", "best peer"):
        shown.add_column(column, justify="left" if column == "operation" else "right")
    echo = {each.connections: each.per_second for each in results if each.name == f"{FLOOR}echo over Kafka"}
    for result in results:
        floor = echo.get(result.connections)
        peer = BEST_PEER.get(result.name) if result.connections == 32 else None
        shown.add_row(
            result.name,
            "open loop" if result.connections is None else str(result.connections),
            f"{result.per_second:,.0f}",
            f"{result.p50:.1f}",
            f"{result.p99:.1f}",
            f"{result.longest:.1f}",
            f"{result.per_second / floor:.2f}" if floor else "",
            f"{peer:,} ({result.per_second / peer:.2f} x)" if peer else "",
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> list[Result]:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option: Any = parser.add_argument
    option("--runs", type=int, default=3, help="measured rounds of each row, of which the median counts (default 3)")
    option("--warm-up", type=int, default=1, help="rounds before them that are not measured (default 1)")
    option("--seconds", type=float, default=4.0, help="duration of a round (default 4)")
    option("--connections", type=int, nargs="+", default=[1, 32], help="numbers of closed loops (default 1 32)")
    option("--codes", type=int, default=4000, help="unused codes at the start of each round (default 4000)")
    option("--only", nargs="*", default=[], metavar="WORD", help="measure only the rows whose name contains a word")
    option("--json", type=Path, metavar="FILE", help="write the results to this file too")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)
    results = uvloop.run(run(options, console))
    console.print(table(results))
    console.print(
        "MAC of a record of 1 KB: {:.1f} µs to compute, {:.1f} µs to check".format(*record_macs.microseconds())
    )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    return results


if __name__ == "__main__":
    main()
