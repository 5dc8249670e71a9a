"""Tables of a run: every row beside its floor, its goal and the best of other systems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from tests.bench.goals import (
    CONNECTIONS,
    GOALS,
    IDLE_PEER_PERCENT,
    IDLE_PERCENT,
    LAG_P99_MILLISECONDS,
    Goal,
)
from tests.bench.measure import Result
from tests.bench.rows import EVENTS, EVENTS_IN_FLIGHT, PASSWORD_CALLS
from tests.bench.runner import Bench

PROCESSES: Final = (
    *("gateway", "auth", "billing", "mailer", "news", "kafka", "mongo", "mail_sink", "stripe_double", "driver"),
)
TOOLS: Final = ("mail_sink", "stripe_double", "driver")
"""Processes that measure, or stand in for what others run."""


@dataclass(frozen=True)
class Comparison:
    """One figure beside its goal.

    Attributes:
        unit: of the figure.
        at_most: whether the goal is a maximum.
    """

    row: str
    figure: str
    measured: float
    goal: float
    unit: str
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the figure is at least, or at most, the goal."""
        return self.measured <= self.goal if self.at_most else self.measured >= self.goal


def rate_result(bench: Bench, name: str) -> Result | None:
    """The result that counts for the rate of a row."""
    for connections in (CONNECTIONS, EVENTS_IN_FLIGHT):
        if (found := bench.find(name, connections)) is not None:
            return found
    return None


def comparisons(bench: Bench) -> Iterator[Comparison]:
    """Every goal whose row was measured."""
    for name, goal in GOALS.items():
        fast, alone = rate_result(bench, name), bench.find(name, 1)
        floor = bench.find(goal.floor, CONNECTIONS)
        if fast is not None and goal.per_second is not None:
            yield Comparison(name, "rate", fast.per_second, goal.per_second, "/s")
        if fast is not None and goal.of_floor is not None and floor is not None:
            yield Comparison(name, "part of its floor", fast.per_second / floor.per_second, goal.of_floor, "")
        for figure, limit in (("p50", goal.p50), ("p99", goal.p99)):
            if alone is not None and limit is not None:
                yield Comparison(name, f"{figure} alone", getattr(alone, figure), limit, "ms", at_most=True)
    lag = bench.find("Stripe webhook, applied: lag after acceptance", None, rate=True)
    if lag is not None:
        figure = f"p99 of the lag at {EVENTS}/s"
        yield Comparison("Stripe webhook, applied", figure, lag.p99, LAG_P99_MILLISECONDS, "ms", at_most=True)
    if bench.statuses:
        figure = f"504 at up to {PASSWORD_CALLS} parallel calls"
        yield Comparison("signwithemail", figure, bench.statuses.get("504", 0), 0, "", at_most=True)
    if bench.idle:
        yield Comparison("nest up, idle", "CPU", sum(bench.idle.values()), IDLE_PERCENT, "% of a core", at_most=True)


def rates(bench: Bench) -> Table:
    """Rates and latencies of every row and load."""
    shown = Table(title="Nest on this machine, medians", title_justify="left")
    for column in ("operation", "load", "a second", "p50 ms", "p99 ms", "longest", "of its floor", "of the best other"):
        shown.add_column(column, justify="left" if column == "operation" else "right")
    for each in bench.results:
        goal = GOALS.get(each.name)
        shown.add_row(
            each.name,
            load(each),
            *(number(figure) for figure in (each.per_second, each.p50, each.p99, each.longest)),
            of_floor(bench, each, goal),
            of_peer(each, goal),
        )
    return shown


def processor(bench: Bench) -> Table:
    """Milliseconds of CPU time per call, by process."""
    shown = Table(title="CPU time per call, ms", title_justify="left")
    shown.add_column("operation")
    for column in ("load", "Nest, Kafka, MongoDB", *PROCESSES):
        shown.add_column(column.replace("_", " "), justify="right")
    for each in bench.results:
        if each.cpu and each.name in GOALS:
            used = (each.cpu[process] for process in PROCESSES)
            shown.add_row(each.name, load(each), f"{nest_cpu(each):.2f}", *(f"{value:.2f}" for value in used))
    return shown


def goals(bench: Bench) -> Table:
    """Every goal, and whether it was reached."""
    shown = Table(title="Goals", title_justify="left")
    for column in ("operation", "figure", "measured", "goal", "measured / goal", ""):
        shown.add_column(column, justify="left" if column in ("operation", "figure", "") else "right")
    for each in comparisons(bench):
        shown.add_row(each.row, each.figure, *compared(each), "reached" if each.reached else "[bold]missed[/bold]")
    return shown


def idle(bench: Bench) -> str:
    """What ``nest up`` uses without calls."""
    parts = ", ".join(f"{name} {percent:.1f}" for name, percent in bench.idle.items())
    memory = ", ".join(f"{name} {size:.0f}" for name, size in bench.idle_memory.items())
    return (
        f"nest up without calls: {sum(bench.idle.values()):.1f} % of a core ({parts}; goal {IDLE_PERCENT:g},"
        f" Supabase Auth with PostgreSQL {IDLE_PEER_PERCENT:g}); MB of memory: {memory}"
    )


def load(result: Result) -> str:
    """Connections, or the rate of an open loop."""
    return f"{result.rate:,}/s open" if result.rate is not None else str(result.connections)


def of_floor(bench: Bench, result: Result, goal: Goal | None) -> str:
    """The rate beside that of the floor with the same load."""
    floor = None if goal is None or result.rate is not None else bench.find(goal.floor, result.connections)
    if floor is None and goal is not None and result.rate is None and result.connections != 1:
        floor = bench.find(goal.floor, CONNECTIONS)
    return f"{result.per_second / floor.per_second:.2f}" if floor is not None else ""


def of_peer(result: Result, goal: Goal | None) -> str:
    """The rate beside that of the fastest other system."""
    peer = goal.best_peer if goal is not None and result.connections == CONNECTIONS else None
    return f"{result.per_second / peer.per_second:.2f}" if peer is not None else ""


def compared(each: Comparison) -> tuple[str, str, str]:
    """Measured figure, goal and ratio as texts."""
    unit = f" {each.unit}" if each.unit not in ("", "/s") else each.unit
    ratio = f"{each.measured / each.goal:.2f}" if each.goal else ""
    return f"{number(each.measured)}{unit}", f"{number(each.goal)}{unit}", ratio


def nest_cpu(result: Result) -> float:
    """Milliseconds of CPU time per call of Nest's services, Kafka and MongoDB."""
    return sum(value for process, value in result.cpu.items() if process not in TOOLS)


def number(value: float) -> str:
    """A figure with three significant digits, or whole."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def processes(results: Iterable[Result]) -> dict[str, float]:
    """The most memory in MB that each process had after any row."""
    most: dict[str, float] = {}
    for each in results:
        for process, size in each.memory.items():
            most[process] = max(size, most.get(process, 0.0))
    return most
