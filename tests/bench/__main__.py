"""How fast is Nest beside what the machine allows? ``make bench`` prints a table; see ``--help``.

Everything runs on this machine: Kafka, MongoDB, five services, the Stripe double and this driver. So read ratios, and
compare only within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import floors
from tests.bench.calls import App
from tests.bench.measure import Call, Result, Round, medians, one_round

CONNECTIONS = (1, 32)
TO_BEAT = {
    "send_magic_link": 1320,
    "authenticate_user, code": 535,
    "authenticate_user, refresh": 629,
    "get_user": 2129,
    "get_subscription_status": 482,
}
"""Requests a second at 32 connections on two cores: the best of five comparable systems, databases with fsync."""


async def main(options: argparse.Namespace) -> None:
    """Start everything, measure, print."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="nest-bench-") as folder:
        around = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.around", folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=1 << 20,
        )
        assert around.stdout is not None
        assert around.stdin is not None
        console.print("starting Kafka, MongoDB and the five services …")
        try:
            told = json.loads(await around.stdout.readline() or b'{"error": "they did not start"}')
            results = await _measure(told, options, console)
        finally:
            around.stdin.close()
            await around.wait()
    console.print(_table(results))


class Bench:
    """Measures one operation after the other."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self._options = options
        self._console = console
        self.results: list[Result] = []

    def wanted(self, name: str) -> bool:
        """Whether the person asked for it."""
        return not self._options.only or any(word in name for word in self._options.only)

    async def measure(self, name: str, call: Call, prepare: Callable[[], Awaitable[None]] | None = None) -> None:
        """Warm up, then some rounds at each number of connections."""
        if not self.wanted(name):
            return
        for connections in CONNECTIONS:
            rounds = [await self._round(name, call, connections, prepare) for _ in range(self._options.runs + 1)]
            self.results.append(medians(name, connections, rounds[1:]))

    async def _round(
        self, name: str, call: Call, connections: int, prepare: Callable[[], Awaitable[None]] | None
    ) -> Round:
        if prepare is not None:
            await prepare()
        measured = await one_round(call, connections, self._options.seconds)
        self._console.print(f"[dim]{name}, {connections} connections: {measured.per_second:,.0f}/s[/dim]")
        return measured


async def _measure(told: dict[str, Any], options: argparse.Namespace, console: Console) -> list[Result]:
    bench = Bench(options, console)
    async with floors.echo(told["kafka"]) as echo, floors.mongo(told["mongo"]) as mongo:
        await bench.measure("floor: echo over Kafka", echo)
        for name, call in mongo.items():
            await bench.measure(f"floor: MongoDB {name}", call)
    app = await App.open(told, max(CONNECTIONS))
    codes, chains = partial(app.prepare_codes, options.codes), partial(app.prepare_chains, max(CONNECTIONS))
    subscribers = partial(app.prepare_subscribers, max(CONNECTIONS))
    try:
        await bench.measure("send_magic_link", app.send_magic_link)
        await bench.measure("authenticate_user, code", app.authenticate_user_code, codes)
        await bench.measure("authenticate_user, refresh", app.authenticate_user_refresh, chains)
        await bench.measure("get_user", app.get_user, chains)
        await bench.measure("get_subscription_status", app.get_subscription_status, subscribers)
        await bench.measure("webhook ingress", app.webhook)
    finally:
        app.close()
    return bench.results


def _table(results: list[Result]) -> Table:
    table = Table(title="Nest on this machine, medians", title_justify="left")
    for column in ("operation", "connections", "a second", "p50 ms", "p99 ms", "of echo", "to beat"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    echo = {result.connections: result.per_second for result in results if result.name == "floor: echo over Kafka"}
    for result in results:
        floor = echo.get(result.connections)
        beat = TO_BEAT.get(result.name) if result.connections == max(CONNECTIONS) else None
        table.add_row(
            result.name,
            str(result.connections),
            f"{result.per_second:,.0f}",
            f"{result.p50:.1f}",
            f"{result.p99:.1f}",
            f"{result.per_second / floor:.2f}" if floor else "",
            f"{beat:,} ({result.per_second / beat:.2f} x)" if beat else "",
        )
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds of which the median counts (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long a round takes (default 4)")
    parser.add_argument("--codes", type=int, default=4000, help="codes at hand for each round (default 4000)")
    parser.add_argument("--only", nargs="*", default=[], help="words of the operations to measure, such as refresh")
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main(_options()))
