"""Tables of ``docs/performance.md``, from ``docs/performance.json`` and ``docs/profile.json``.

``python -m tests.bench.performance`` writes them anew. ``make performance`` measures both files first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench import machine, profile_report, waterfall
from tests.bench.goals import CONNECTIONS, GOALS, IDLE_PERCENT, Goal
from tests.bench.markdown import code, render, table
from tests.bench.measure import Result
from tests.bench.profile_data import Load, Profile, read
from tests.bench.report import (
    PROCESSES,
    Comparison,
    comparisons,
    load,
    nest_cpu,
    number,
    of_floor,
    of_peer,
    rate_result,
)
from tests.bench.rows import FLOOR
from tests.bench.runner import Bench

DOCUMENT: Final = Path("docs/performance.md")
RESULTS: Final = Path("docs/performance.json")
PROFILES: Final = Path("docs/profile.json")
PLOT: Final = Path("docs/pictures/performance.svg")
FUNCTIONS_OF: Final = 2
"""Processes whose functions are shown."""
COMMANDS: Final = ("find", "insert", "update", "findAndModify", "commitTransaction")


def tables(bench: Bench, profiles: Sequence[Profile]) -> dict[str, str]:
    """The tables of the document, by name."""
    found = {
        "machine": f"{machine.described(bench.machine)}.\n",
        "results": table(
            (
                *("operation", f"a second at {CONNECTIONS}", "goal", "of its floor", "of the best other system"),
                *("p50 alone, ms", "goal", "p99 alone, ms", "goal"),
            ),
            _results(bench),
        ),
        "missed": _missed(bench),
        "open": table(
            ("operation", "a second", "p50, ms", "p99, ms", "longest, ms"),
            [
                (named(each.name), number(each.per_second), number(each.p50), number(each.p99), number(each.longest))
                for each in bench.results
                if each.rate is not None and not each.name.startswith(FLOOR)
            ],
        ),
        "mails": table(
            ("operation", "load", "mails a second", "p50, ms", "p99, ms"),
            [
                (named(each.name.partition(":")[0]), load(each), *map(number, (each.per_second, each.p50, each.p99)))
                for each in bench.results
                if each.name.endswith("mail handed over")
            ],
        ),
        "floors": table(
            ("floor", "a second alone", f"a second at {CONNECTIONS}", "p50 alone, ms"),
            [
                (
                    floor.removeprefix(FLOOR),
                    *(number(value) for value in (alone.per_second, many.per_second, alone.p50)),
                )
                for floor in dict.fromkeys(each.name for each in bench.results if each.name.startswith(FLOOR))
                if (alone := bench.find(floor, 1)) and (many := bench.find(floor, CONNECTIONS))
            ],
        ),
        "cpu": table(
            ("operation", "connections", "Nest, Kafka, MongoDB", *(each.replace("_", " ") for each in PROCESSES)),
            [
                (named(each.name), load(each), f"{nest_cpu(each):.2f}", *(f"{each.cpu[one]:.2f}" for one in PROCESSES))
                for each in bench.results
                if each.cpu and each.rate is None and each.name in GOALS
            ],
        ),
        "idle": table(
            ("process", "percent of a core", "MB of memory"),
            [
                *((each, f"{value:.1f}", f"{bench.idle_memory[each]:.0f}") for each, value in bench.idle.items()),
                ("**all**", f"**{sum(bench.idle.values()):.1f}**, goal {IDLE_PERCENT:g}", ""),
            ],
        ),
        "others": table(
            ("operation", "system", "a second", "p50 alone, ms"),
            [
                (named(row), peer.system, number(peer.per_second), "" if peer.p50 is None else f"{peer.p50:g}")
                for row, goal in GOALS.items()
                for peer in goal.peers
            ],
        ),
    }
    if profiles:
        found |= {
            "trips": table(
                ("operation", "Kafka produce", "records through Kafka", *COMMANDS, "SMTP"), _trips(profiles)
            ),
            "counters": table(
                (
                    *("operation", "connections", "MongoDB commands", "of them commits", "MongoDB, bytes"),
                    *("Kafka requests", "of them produce", "Kafka, bytes", "messages in a commit"),
                ),
                _counters(profiles),
            ),
            "waterfalls": "\n".join(f"{named(each.row)}:\n\n{_waterfall(each)}" for each in profiles),
            "functions": "\n".join(
                f"{named(each.row)}:\n\n{_packages(each)}\n{_functions(each)}" for each in profiles if each.stacks
            ),
        }
    return found


def named(row: str) -> str:
    """The name of a row, with methods as code."""
    method, comma, rest = row.partition(",")
    return f"`{method}`{comma}{rest}" if "_" in method or (method.islower() and " " not in method) else row


def _results(bench: Bench) -> Iterator[tuple[str, ...]]:
    for row, goal in GOALS.items():
        many, alone = rate_result(bench, row), bench.find(row, 1)
        if many is None or alone is None:
            continue
        yield (
            named(row),
            _rate(many),
            _goal(bench, many, goal),
            of_floor(bench, many, goal),
            of_peer(many, goal),
            number(alone.p50),
            "" if goal.p50 is None else f"{goal.p50:g}",
            number(alone.p99),
            "" if goal.p99 is None else f"{goal.p99:g}",
        )


def _rate(result: Result) -> str:
    here = "" if result.connections == CONNECTIONS else f", at {result.connections}"
    return f"{number(result.per_second)}{here}"


def _goal(bench: Bench, result: Result, goal: Goal) -> str:
    floor = bench.find(goal.floor, CONNECTIONS)
    if goal.per_second is not None:
        return f"{goal.per_second:,.0f}"
    return f"{goal.of_floor:g} of its floor" if floor is not None and goal.of_floor is not None else ""


def _missed(bench: Bench) -> str:
    found = list(comparisons(bench))
    missed = [each for each in found if not each.reached]
    lines = [f"{len(found) - len(missed)} of {len(found)} goals are reached{'. These are missed:' if missed else ''}"]
    return "\n".join([*lines, "", *(f"- {_said(each)}" for each in missed)]).strip() + ("\n" if missed else ".\n")


def _said(each: Comparison) -> str:
    unit = each.unit if each.unit in ("", "/s") else f" {each.unit}"
    return f"{named(each.row)}, {each.figure} {number(each.measured)}{unit} (goal {number(each.goal)}{unit})"


def _trips(profiles: Sequence[Profile]) -> Iterator[tuple[str, ...]]:
    for each in profiles:
        kinds = [step.command for step in each.steps]
        records = sum(step.name.startswith("record to ") for step in each.steps)
        counts = (kinds.count(f"MongoDB {command}") for command in COMMANDS)
        yield (
            named(each.row),
            *(str(count) for count in (kinds.count("Kafka produce"), records, *counts, kinds.count("SMTP"))),
        )


def _counters(profiles: Sequence[Profile]) -> Iterator[tuple[str, ...]]:
    for each in profiles:
        for measured, requests in (
            (each.alone, {kind: count for kind, (count, _) in each.requests.items()}),
            (each.together, each.requests_together),
        ):
            if measured is not None:
                yield (named(each.row), str(measured.connections), *_counted(measured, requests))


def _counted(measured: Load, requests: Mapping[str, float]) -> tuple[str, ...]:
    commands = sum(value for command, value in measured.mongo.items() if not command.startswith("bytes"))
    produced = sum(count for kind, count in requests.items() if kind.endswith("PRODUCE"))
    return (
        f"{commands:.2f}",
        f"{measured.mongo.get('commitTransaction', 0.0):.2f}",
        number(sum(value for command, value in measured.mongo.items() if command.startswith("bytes"))),
        f"{sum(requests.values()):.2f}",
        f"{produced:.2f}",
        number(sum(measured.kafka.values())),
        ", ".join(f"{service} {size:.1f}" for service, size in measured.commits.items()),
    )


def _waterfall(profile: Profile) -> str:
    lines = list(waterfall.lines(profile.steps))
    width = max(len(step) for _, step, *_ in lines)
    return code(
        "".join(
            f"{process:8} {step:{width}} {start:>7} {milliseconds:>6} {bar.rstrip()}".rstrip() + "\n"
            for process, step, start, milliseconds, bar in lines
        )
    )


def _packages(profile: Profile) -> str:
    """Packages by process, where a process has much of the CPU time of a call."""
    shown = list(profile_report.hot(profile))
    return table(
        ("process", "CPU of a call, ms", "by package"),
        [
            (process, f"{_used(profile, process):.2f}", ", ".join(f"{name} {share}" for name, share, _ in packages))
            for process, packages, _ in shown
        ],
    )


def _functions(profile: Profile) -> str:
    """The most expensive functions of the processes that use most."""
    shown = sorted(profile_report.hot(profile), key=lambda each: -_used(profile, each[0]))[:FUNCTIONS_OF]
    return table(
        ("process", "function, with its callees", "of its CPU time", "ms a call"),
        [
            (process, f"`{function}`", share, milliseconds)
            for process, _, functions in shown
            for function, share, milliseconds in functions
        ],
    )


def _used(profile: Profile, process: str) -> float:
    return 0.0 if profile.together is None else profile.together.cpu[process]


def stored(root: Path = Path()) -> tuple[Bench, list[Profile]]:
    """The stored results."""
    bench: dict[str, Any] = json.loads((root / RESULTS).read_text())
    return Bench.of_json(bench), read(root / PROFILES)


def main() -> None:
    """Write the tables of the document anew."""
    DOCUMENT.write_text(render(DOCUMENT.read_text(), tables(*stored())))


if __name__ == "__main__":
    main()
