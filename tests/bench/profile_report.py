"""Tables of a profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.bench import waterfall
from tests.bench.profile_data import Load, Profile
from tests.bench.report import TOOLS

FUNCTIONS: Final = 12
PACKAGES: Final = 8
LEAST_REQUESTS: Final = 0.05
LEAST_CPU: Final = 0.02
"""Processes with less of the CPU time of a call are not shown by package and function."""


def show(profile: Profile, console: Console) -> None:
    """Print a profile."""
    console.rule(f"{profile.job}: {profile.row}")
    console.print(_waterfall(profile.steps))
    console.print(_table("Round trips of one request alone", ("round trip", "number", "ms"), round_trips(profile)))
    console.print(
        _table(
            "Kafka requests of one call, by client and kind",
            ("request", "alone", "ms in the broker, alone", "together"),
            kafka_requests(profile),
        )
    )
    for load in (profile.alone, profile.together):
        if load is not None:
            console.print(_load(load))
    for process, packages, functions in hot(profile):
        console.print(_table(f"CPU time of {process} by package", ("package", "share", "ms a call"), packages))
        console.print(
            _table(
                f"CPU time of {process} by function, with its callees", ("function", "share", "ms a call"), functions
            )
        )


def round_trips(profile: Profile) -> Iterator[tuple[str, str, str]]:
    """Kind of round trip, their number and their milliseconds together, of the request of the waterfall."""
    number_of, time_of = Counter[str](), Counter[str]()
    for step in profile.steps:
        kind = f"{step.command}, {step.process}" if step.command else ""
        if step.name.startswith(("record to ", "reply and ")):
            kind = f"record through Kafka to {step.process}"
        if kind:
            number_of[kind] += 1
            time_of[kind] += step.milliseconds  # type: ignore[assignment]
    for kind, count in number_of.most_common():
        yield kind, str(count), f"{time_of[kind]:.2f}"


def kafka_requests(profile: Profile) -> Iterator[tuple[str, str, str, str]]:
    """Client and kind, number alone, milliseconds, and number at many connections, of the requests of a call."""
    for kind in dict.fromkeys([*profile.requests, *profile.requests_together]):
        count, milliseconds = profile.requests.get(kind, (0.0, 0.0))
        if count < LEAST_REQUESTS:
            # Of timers and starts rather than of calls.
            continue
        yield kind, f"{count:.2f}", f"{milliseconds:.2f}", f"{profile.requests_together.get(kind, 0.0):.2f}"


def hot(profile: Profile) -> Iterator[tuple[str, list[tuple[str, str, str]], list[tuple[str, str, str]]]]:
    """Packages and functions of the processes that use much, with their shares and milliseconds for each call."""
    if profile.together is None:
        return
    all_of_it = sum(used for name, used in profile.together.cpu.items() if name not in TOOLS)
    for process, shares in profile.stacks.items():
        used = profile.together.cpu[process]
        if used >= LEAST_CPU * all_of_it:
            yield process, _shares(shares.packages, used, PACKAGES), _shares(shares.functions, used, FUNCTIONS)


def _shares(parts: Mapping[str, float], used: float, count: int) -> list[tuple[str, str, str]]:
    return [(name, f"{100 * part:.0f} %", f"{part * used:.3f}") for name, part in list(parts.items())[:count]]


def _waterfall(steps: Sequence[waterfall.Step]) -> Table:
    shown = Table(title="One request alone, ms", title_justify="left", box=None, pad_edge=False)
    for column in ("process", "step", "start", "ms", ""):
        shown.add_column(column, justify="right" if column in ("start", "ms") else "left", no_wrap=True)
    for line in waterfall.lines(steps):
        shown.add_row(*line)
    return shown


def _load(load: Load) -> Table:
    title = f"{load.connections} connections: {load.round.per_second:,.0f}/s, p50 {load.round.p50:.1f} ms"
    shown = Table(title=f"{title}; of each call", title_justify="left", show_header=False)
    for name, values, unit in (
        ("CPU, ms", load.cpu, 2),
        ("MongoDB, commands and bytes", load.mongo, 2),
        ("Kafka, bytes by topic", load.kafka, 0),
        ("messages in a commit", load.commits, 1),
    ):
        shown.add_row(name, ", ".join(f"{each} {value:,.{unit}f}" for each, value in values.items()))
    return shown


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    shown = Table(title=title, title_justify="left")
    for number_of, column in enumerate(columns):
        shown.add_column(column, justify="right" if number_of else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    return shown
