"""Watching a Stripe run: its progress, its differences, and how to resume it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer

from services.operator.client import Client, Refused, Unreachable
from services.operator.command_line import note
from services.operator.output import Table, columns, print_json, show

FIRST_PAUSE_SECONDS: Final = 0.3
LONGEST_PAUSE_SECONDS: Final = 3.0
LINE_SECONDS: Final = 10.0
"""Pause between two lines about the same stage, where there is no terminal."""
OUTAGE_SECONDS: Final = 60.0
"""How long Nest may be unavailable meanwhile; the run itself survives longer outages."""
UNFINISHED: Final = frozenset({"running", "waiting"})
DIFFERENCES: Final = columns(
    "object, stripe_id: STRIPE ID, id: NEST ID, kind, state, changes: FIELDS: OURS -> STRIPE'S"
)


def run(nest: Client, method: str, body: dict[str, Any], run_id: str | None, *, wait: bool, as_json: bool) -> None:
    """Start a run with a method and body, or resume the run with the given ID, and watch it until it is done.

    Without ``wait`` its ID is printed. Ctrl-C stops the run, so that it can be resumed.

    Raises:
        CommandError: a call failed.
        typer.Exit: with code 1 if something differs or the run did not finish; with 130 after Ctrl-C.
    """
    try:
        started: dict[str, Any] = (
            nest.call(method, body) if run_id is None else nest.call("resume_stripe_run", {"run_id": run_id})
        )
    except Refused as refused:
        if refused.code == "stripe_run_under_way" and "run_id" in refused.meta:
            note(f"a run is in progress: --run {refused.meta['run_id']} watches it")
        raise
    if not wait:
        typer.echo(json.dumps(started, indent=2) if as_json else started["id"])
        return
    try:
        with _progress() as report:
            finished = _follow(nest, started, report)
    except KeyboardInterrupt:
        nest.call("stop_stripe_run", {"run_id": started["id"]})
        note(f"stopped; --run {started['id']} resumes it")
        raise typer.Exit(130) from None
    _print_result(nest, finished, as_json=as_json)


def _follow(nest: Client, state: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    pause, unavailable_since = FIRST_PAUSE_SECONDS, None
    while state["status"] in UNFINISHED:
        report(state)
        time.sleep(pause)
        pause = min(pause * 1.3, LONGEST_PAUSE_SECONDS)
        try:
            state = nest.call("get_stripe_run", {"run_id": state["id"]})
            unavailable_since = None
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and error.status < 500:  # noqa: PLR2004 -- server errors
                raise
            unavailable_since = unavailable_since or time.monotonic()
            if time.monotonic() - unavailable_since > OUTAGE_SECONDS:
                note(f"the run continues; --run {state['id']} watches it again")
                raise
    report(state)
    return state


def _print_result(nest: Client, finished: dict[str, Any], *, as_json: bool) -> None:
    differences = _differences(nest, finished["id"])
    if as_json:
        print_json({**finished, "found": differences})
    else:
        if differences:
            show(Table(None, [{**each, "changes": _changes(each)} for each in differences], DIFFERENCES))
        summary = f"{finished['id']} {finished['status']}: {_counts(finished) or 'nothing to do'}"
        typer.echo(summary, err=bool(differences))
    if finished["status"] != "done" or finished["differences"]:
        raise typer.Exit(1)


def _differences(nest: Client, run_id: str) -> list[dict[str, Any]]:
    differences: list[dict[str, Any]] = []
    body: dict[str, Any] = {"run_id": run_id, "limit": 500}
    while True:
        page = nest.call("list_stripe_differences", body)
        differences += page["differences"]
        if page["next_cursor"] is None:
            return differences
        body["cursor"] = page["next_cursor"]


def _changes(difference: dict[str, Any]) -> str:
    return "; ".join(f"{each['field']}: {each['ours']} -> {each['theirs']}" for each in difference["fields"])


def _counts(state: dict[str, Any]) -> str:
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in state["counts"].items())


def _objects(state: dict[str, Any]) -> str:
    """``1,200 of 5,000 objects, 40 s left``, as far as it is known; empty before the first object."""
    read, total, left = (state.get(name) for name in ("objects_read", "objects_total", "seconds_left"))
    if not read and not total:
        return ""
    counted = f"{read:,} objects" if total is None else f"{read:,} of {total:,} objects"
    return counted if left is None else f"{counted}, {_duration(left)} left"


def _duration(seconds: int) -> str:
    if seconds < 100:  # noqa: PLR2004 -- more than a minute and a half is written in minutes
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004


def _described(state: dict[str, Any]) -> str:
    """Stage, objects and counts."""
    waits = " (Stripe is unavailable)" if state["status"] == "waiting" else ""
    return "  ".join(filter(None, [f"{state['stage'].replace('_', ' ')}{waits}", _objects(state), _counts(state)]))


@contextmanager
def _progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Report progress on standard error: as one updated line on a terminal, elsewhere per stage and every 10 s."""
    if not sys.stderr.isatty():
        yield _printed_lines(time.monotonic)
        return
    from rich.console import Console  # noqa: PLC0415 -- would slow down `nest --help`
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def update(state: dict[str, Any]) -> None:
            progress.update(task, description=_described(state))

        yield update


def _printed_lines(clock: Callable[[], float]) -> Callable[[dict[str, Any]], None]:
    """A function that prints a line if the stage or status is new, or ``LINE_SECONDS`` after the last line."""
    last: tuple[tuple[str, str], float] | None = None

    def print_line(state: dict[str, Any]) -> None:
        nonlocal last
        place = state["stage"], state["status"]
        if last is None or last[0] != place or clock() - last[1] >= LINE_SECONDS:
            last = place, clock()
            note(f"{state['id']} {state['status']}: {_described(state)}")

    return print_line
