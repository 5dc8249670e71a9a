"""How does somebody watch a run of Nest's? Its progress as it goes, its findings at the end, and how to go on later."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import typer

from services.operator.client import Client
from services.operator.errors import OutOfReach, RefusedVerb
from services.operator.tables import show

FIRST_LOOK: Final = 0.3
LONGEST_PAUSE: Final = 3.0
OUT_OF_REACH: Final = 60.0
"""Seconds that Nest may be away meanwhile: the run itself outlives that."""
GOING_ON: Final = frozenset({"running", "waiting"})
DIFFERENCES: Final = {
    "object": "OBJECT",
    "stripe_id": "IN STRIPE",
    "id": "HERE",
    "kind": "WHAT",
    "state": "STATE",
    "told": "FIELDS: OURS -> STRIPE'S",
}


class Teller(Protocol):
    """Says how far a run is."""

    def __call__(self, run: dict[str, Any]) -> None:
        """Say it."""


def watched(
    client: Client, method: str, asked: dict[str, Any], run_id: str | None, *, wait: bool, as_json: bool
) -> None:
    """Begin a run or go on with one, and stay until it is done; Ctrl-C stops it, to be gone on with later.

    Args:
        client: of which Nest.
        method: what begins it.
        asked: the method's body.
        run_id: the one to go on with, or to watch, instead.
        wait: whether to stay.
        as_json: for a script.

    Raises:
        CannotDo: as the client says.
        typer.Exit: with code 1 when something differs, or the run did not come to its end.
    """
    run = _begun(client, method, asked, run_id)
    if not wait:
        typer.echo(json.dumps(run, indent=2) if as_json else run["id"])
        return
    try:
        with _telling() as tell:
            run = _followed(client, run, tell)
    except KeyboardInterrupt:
        client.call("stop_stripe_run", {"run_id": run["id"]})
        typer.echo(f"stopped; --run {run['id']} goes on", err=True)
        raise typer.Exit(130) from None
    _conclude(client, run, as_json=as_json)


def _begun(client: Client, method: str, asked: dict[str, Any], run_id: str | None) -> dict[str, Any]:
    try:
        run: dict[str, Any] = (
            client.call(method, asked) if run_id is None else client.call("resume_stripe_run", {"run_id": run_id})
        )
    except RefusedVerb as refused:
        if refused.code == "stripe_run_under_way" and "run_id" in refused.meta:
            typer.echo(f"one is under way: --run {refused.meta['run_id']} watches it", err=True)
        raise
    return run


def _followed(client: Client, run: dict[str, Any], tell: Teller) -> dict[str, Any]:
    pause, away_since = FIRST_LOOK, None
    while run["status"] in GOING_ON:
        tell(run)
        time.sleep(pause)
        pause = min(pause * 1.3, LONGEST_PAUSE)
        try:
            run = client.call("get_stripe_run", {"run_id": run["id"]})
            away_since = None
        except (OutOfReach, RefusedVerb) as away:
            if isinstance(away, RefusedVerb) and away.status < 500:  # noqa: PLR2004 -- server errors
                raise
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > OUT_OF_REACH:
                typer.echo(f"the run goes on by itself; --run {run['id']} watches it again", err=True)
                raise
    tell(run)
    return run


def _conclude(client: Client, run: dict[str, Any], *, as_json: bool) -> None:
    found = _differences(client, run["id"])
    if as_json:
        typer.echo(json.dumps({**run, "found": found}, indent=2, ensure_ascii=False))
    else:
        if found:
            show({}, [{**each, "told": _told(each)} for each in found], DIFFERENCES, as_json=False)
        typer.echo(_summary(run), err=bool(found))
    if run["status"] != "done" or run["differences"]:
        raise typer.Exit(1)


def _differences(client: Client, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"run_id": run_id, "limit": 500}
    while True:
        page = client.call("list_stripe_differences", asked)
        found += page["differences"]
        if page["next_cursor"] is None:
            return found
        asked["cursor"] = page["next_cursor"]


def _told(difference: dict[str, Any]) -> str:
    return "; ".join(f"{each['field']}: {each['ours']} -> {each['theirs']}" for each in difference["fields"])


def _summary(run: dict[str, Any]) -> str:
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in run["counts"].items())
    return f"{run['id']} {run['status']}: {counts or 'nothing to do'}"


@contextmanager
def _telling() -> Iterator[Teller]:
    """On a terminal one line that moves; in a pipe a line for each stage. Always on standard error."""
    if not sys.stderr.isatty():
        stages: list[tuple[str, str]] = []

        def line(run: dict[str, Any]) -> None:
            if stages[-1:] != [(run["stage"], run["status"])]:
                stages.append((run["stage"], run["status"]))
                typer.echo(f"{run['id']} {run['status']}: {run['stage'].replace('_', ' ')}", err=True)

        yield line
        return
    # Here, so that `nest --help` needs not wait for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("beginning", total=None)

        def move(run: dict[str, Any]) -> None:
            waits = " (Stripe can't be asked now)" if run["status"] == "waiting" else ""
            counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in run["counts"].items())
            progress.update(task, description=f"{run['stage'].replace('_', ' ')}{waits}  {counts}")

        yield move
