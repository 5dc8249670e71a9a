"""Benchmark: rates, latencies and CPU time of Nest's operations, beside the floors of the machine and the goals.

Kafka, MongoDB, the five services, a Stripe double, a mail sink and the load generator share this machine. Read the
ratios, and compare figures of one run only. Closed loops show the highest rate; open loops send at a fixed rate, and
their latencies count from when a request was due.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console

from tests.bench import idle, machine, plot, record_macs, report
from tests.bench.environment import environment
from tests.bench.rows import SETTINGS, STRIPE_SECONDS, floor_rows, nest_rows
from tests.bench.runner import Bench, Rounds, Runner

IDLE: Final = "idle"
QUICK: Final = {"seconds": 0.5, "runs": 1, "warm_up": 0}
QUICK_ROWS: Final = (
    *("floor", "send_magic_link, new", "code of a new", "refresh", "get_user", "list_news_items", "webhook"),
    *("signwithemail", IDLE),
)
EXAMPLES: Final = """\
examples:
  python -m tests.bench                                        every row; below 20 minutes
  python -m tests.bench --quick                                one short round of most rows; below 2 minutes
  python -m tests.bench --only refresh get_user --runs 5       rows whose name contains one of these words
  python -m tests.bench --only idle                            only what nest up uses without calls
  python -m tests.bench --json results.json --plot rates.svg   results and plot as files
  python -m tests.bench --show results.json                    the tables of an earlier run
"""


async def run(rounds: Rounds, console: Console, *, settle: float, idle_seconds: float) -> Bench:
    """Start the environment and measure every row that is wanted."""
    bench = Bench()
    if rounds.only != (IDLE,):
        console.print("starting Kafka, MongoDB and the five services …")
        async with environment(SETTINGS, stripe_seconds=STRIPE_SECONDS) as running:
            bench.machine = await machine.facts(running["mongo"])
            runner = Runner(rounds, running["all_pids"], console)
            async with floor_rows(running) as rows:
                for row in rows:
                    bench.results += await runner.measure(row)
            async with nest_rows(running, max(rounds.connections)) as (rows, statuses):
                for row in rows:
                    bench.results += await runner.measure(row)
                bench.statuses = {str(status): count for status, count in sorted(statuses.items())}
    if rounds.wants(IDLE):
        console.print("[dim]nest up without calls …[/dim]")
        bench.idle, bench.idle_memory = await idle.idle(settle, idle_seconds)
    return bench


def show(bench: Bench, console: Console) -> None:
    """Print the tables of a run."""
    if bench.results:
        console.print(report.rates(bench))
        console.print(report.processor(bench))
        console.print(report.goals(bench))
        memory = ", ".join(f"{name} {size:.0f}" for name, size in report.processes(bench.results).items())
        console.print(f"most resident memory after a row, MB: {memory}")
    if bench.idle:
        console.print(report.idle(bench))
    if bench.machine:
        console.print(machine.described(bench.machine))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
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
    option("--quick", action="store_true", help="one round of half a second of most rows, without warm-up")
    option("--only", nargs="*", default=[], metavar="WORD", help="measure only the rows whose name contains a word")
    option("--json", type=Path, metavar="FILE", help="write the results to this file too")
    option("--plot", type=Path, metavar="FILE", help="write rates and latencies as SVG to this file")
    option("--show", type=Path, metavar="FILE", help="measure nothing: show the results in this file")
    options = parser.parse_args(arguments)
    if options.quick:
        vars(options).update(QUICK)
        options.only = options.only or QUICK_ROWS
    return options


def main(arguments: Sequence[str] | None = None) -> Bench:
    """Run the benchmark, print its tables and write its files."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 180)
    if options.show is not None:
        bench = Bench.of_json(json.loads(options.show.read_text()))
    else:
        rounds = Rounds(options.seconds, options.runs, options.warm_up, tuple(options.connections), tuple(options.only))
        settle, seconds = (3.0, 4.0) if options.quick else (idle.SETTLE_SECONDS, idle.SECONDS)
        bench = uvloop.run(run(rounds, console, settle=settle, idle_seconds=seconds))
    show(bench, console)
    if options.show is None and not options.only:
        computed, checked = record_macs.microseconds()
        console.print(f"MAC of a record of 1 KB: {computed:.1f} µs to compute, {checked:.1f} µs to check")
    _write(options.json, json.dumps(bench.as_json(), indent=1) + "\n")
    _write(options.plot, plot.svg(bench))
    return bench


def _write(file: Path | None, text: str) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    main()
