"""Benchmark of overload: goodput and latencies at a multiple of the highest rate that Nest can serve.

Closed loops measure the highest rate of ``get_user``. Then an open loop sends a multiple of it. Goodput is the rate of
successful responses; latencies of admitted requests count from the time at which they were due.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench.app import App
from tests.bench.environment import environment
from tests.bench.flood import Flood
from tests.bench.measure import closed_loops

USERS: Final = 64
CONNECTIONS: Final = 1_500
CLIENT_SECONDS: Final = 30.0
"""Client timeout."""
MIN_GOODPUT: Final = 0.8
"""Goal: goodput under overload, as a fraction of the best."""
MAX_P99_MILLISECONDS: Final = 2_000
"""Goal: latency of admitted requests under overload."""


@dataclass(frozen=True)
class Overload:
    """Figures of one open loop.

    Attributes:
        best: requests a second of the closed loops.
        offered: requests a second of the open loop.
        goodput: successful responses a second.
        p50: latency of admitted requests, milliseconds.
        p99: the same.
        refused: requests with 429 or 503.
        refusal_p99: latency of refusals, milliseconds.
        failed: requests with another status, without response within ``CLIENT_SECONDS`` or without connection.
    """

    best: float
    offered: float
    goodput: float
    p50: float
    p99: float
    refused: int
    refusal_p99: float
    failed: int

    @property
    def meets_goal(self) -> bool:
        """Whether goodput and latency are within their limits and no request failed."""
        return self.goodput > MIN_GOODPUT * self.best and self.p99 < MAX_P99_MILLISECONDS and not self.failed


async def run(options: argparse.Namespace) -> Overload:
    """Start the environment, measure the best rate and then the overload."""
    async with environment() as running:
        app = App(running, USERS)
        await app.prepare_logins(USERS)
        await app.connect()
        rounds = [await closed_loops(app.get_user, USERS, options.seconds / 2) for _ in range(2)]
        best = rounds[-1].per_second
        rate = best * options.times
        url = urlsplit(running["url"])
        assert url.hostname is not None
        assert url.port is not None
        flood = Flood(url.hostname, url.port, app.get_user_requests(), client_seconds=CLIENT_SECONDS)
        await flood.connect(options.connections)
        elapsed = await flood.run(rate, options.seconds)
        flood.close()
        app.close()
    admitted = flood.latencies.pop(200, [])
    refused = [*flood.latencies.pop(429, []), *flood.latencies.pop(503, [])]
    return Overload(
        best=best,
        offered=rate,
        goodput=len(admitted) / elapsed,
        p50=_percentile(admitted, 50),
        p99=_percentile(admitted, 99),
        refused=len(refused),
        refusal_p99=_percentile(refused, 99),
        failed=flood.timeouts + sum(map(len, flood.latencies.values())),
    )


def table(measured: Overload) -> Table:
    """The figures beside their goals."""
    shown = Table(title="Overload of get_user", title_justify="left")
    for column in ("figure", "measured", "goal"):
        shown.add_column(column, justify="left" if column == "figure" else "right")
    for row in (
        ("best, a second", f"{measured.best:,.0f}", ""),
        ("offered, a second", f"{measured.offered:,.0f}", ""),
        ("goodput, of the best", f"{measured.goodput / measured.best:.2f}", f"> {MIN_GOODPUT}"),
        ("p50 of admitted, ms", f"{measured.p50:,.0f}", ""),
        ("p99 of admitted, ms", f"{measured.p99:,.0f}", f"< {MAX_P99_MILLISECONDS:,}"),
        ("refused", f"{measured.refused:,}", ""),
        ("p99 of refusals, ms", f"{measured.refusal_p99:,.0f}", ""),
        ("failed", f"{measured.failed:,}", "0"),
    ):
        shown.add_row(*row)
    return shown


def _percentile(seconds: Sequence[float], percent: int) -> float:
    ordered = sorted(seconds)
    return 1000 * ordered[len(ordered) * percent // 100] if ordered else 0.0


def main(arguments: Sequence[str] | None = None) -> Overload:
    """Run the benchmark and print its figures; as a program it ends with 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.overload", description=__doc__)
    option: Any = parser.add_argument
    option("--times", type=float, default=3.0, help="rate of the open loop, as a multiple of the best (default 3)")
    option("--seconds", type=float, default=20.0, help="duration of the open loop (default 20)")
    option("--connections", type=int, default=CONNECTIONS, help=f"of the open loop (default {CONNECTIONS})")
    option("--json", type=Path, metavar="FILE", help="write the figures to this file too")
    options = parser.parse_args(arguments)
    measured = uvloop.run(run(options))
    Console(width=132).print(table(measured))
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(measured), indent=1) + "\n")
    return measured


if __name__ == "__main__":
    sys.exit(0 if main().meets_goal else 1)
