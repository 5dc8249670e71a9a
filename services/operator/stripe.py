"""`nest stripe`: are our records what Stripe says, and what is to be done about it if they are not?"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client
from services.operator.options import AsJson, Data, Yes, confirmed, examples, said_in_words
from services.operator.run_watching import watched
from services.operator.tables import show

app = typer.Typer(no_args_is_help=True, help="Compare with Stripe, repair, fetch missed events, take an account over.")
RUNS: Final = {
    "id": "RUN",
    "kind": "KIND",
    "status": "STATUS",
    "differences": "DIFFERENCES",
    "scheduled": "BY THE CLOCK",
    "started_at": "STARTED",
    "finished_at": "FINISHED",
}
IMPORT_QUESTION: Final = (
    "All that this Stripe account has by now is recorded, and its customers become users. Nobody is written to.\n"
    "Take it over?"
)

RunId = Annotated[str | None, typer.Option("--run", help="Go on with this run, or watch it, instead of a new one.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it is done; otherwise print its id.")]
Within = Annotated[
    int | None,
    typer.Option("--changed-within", min=1, max=720, help="Only what Stripe's events told of in so many hours."),
]
Days = Annotated[int, typer.Option(min=1, max=30, help="How far back; Stripe keeps events for 30 days.")]
EventIds = Annotated[list[str] | None, typer.Argument(help="Events, evt_…; or choose by --type, --since, --until.")]
Types = Annotated[list[str] | None, typer.Option("--type", help="Of this type; repeat it for several.")]
Kept = Annotated[bool, typer.Option("--kept", help="From the events that Nest keeps, not from Stripe's list.")]
MOMENTS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
Since = Annotated[datetime | None, typer.Option(formats=MOMENTS, help="Not before this time, UTC.")]
Until = Annotated[datetime | None, typer.Option(formats=MOMENTS, help="Not after this time, UTC.")]


@app.command(epilog=examples("nest stripe verify", "nest stripe verify --changed-within 24"))
def verify(
    data: Data = Path(".nest"),
    *,
    changed_within: Within = None,
    run: RunId = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Compare every customer, subscription, trial, payment and dispute with Stripe; exit code 1 if anything differs."""
    asked: dict[str, Any] = {"repair": False}
    if changed_within is not None:
        asked["changed_within_hours"] = changed_within
    _run(data, "reconcile_subscriptions", asked, run, wait=wait, as_json=as_json)


@app.command(epilog=examples("nest stripe reconcile"))
def reconcile(
    data: Data = Path(".nest"),
    *,
    changed_within: Within = None,
    run: RunId = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Compare, repair what differs the way a webhook would, and compare that again; exit code 1 if anything is left."""
    asked: dict[str, Any] = {} if changed_within is None else {"changed_within_hours": changed_within}
    _run(data, "reconcile_subscriptions", asked, run, wait=wait, as_json=as_json)


@app.command(epilog=examples("nest stripe sweep", "nest stripe sweep --days 3"))
def sweep(
    data: Data = Path(".nest"), *, days: Days = 30, run: RunId = None, wait: Wait = True, as_json: AsJson = False
) -> None:
    """Fetch the events that Stripe could not deliver. One that came after all is handled once."""
    _run(data, "sweep_stripe_events", {"days": days}, run, wait=wait, as_json=as_json)


@app.command(
    epilog=examples(
        "nest stripe replay evt_1", "nest stripe replay --type 'customer.subscription.*' --since 2026-11-18"
    )
)
def replay(
    event_ids: EventIds = None,
    data: Data = Path(".nest"),
    *,
    types: Types = None,
    since: Since = None,
    until: Until = None,
    kept: Kept = False,
    run: RunId = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Look at events again, also at those that were handled before."""
    if run is None and not (event_ids or types or since):
        raise typer.BadParameter("which events? Name some, or give --type or --since")
    asked: dict[str, Any] = {"event_ids": event_ids or [], "types": types or [], "kept": kept}
    asked |= {name: _utc(moment) for name, moment in (("since", since), ("until", until)) if moment is not None}
    _run(data, "replay_stripe_events", asked, run, wait=wait, as_json=as_json)


@app.command(name="import", epilog=examples("nest stripe import"))
def import_account(
    data: Data = Path(".nest"),
    *,
    run: RunId = None,
    wait: Wait = True,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take over an account that lived before Nest: its customers, subscriptions, payments. Writes to nobody."""
    with said_in_words():
        client = Client.of(data)
        if run is None:
            confirmed(IMPORT_QUESTION, yes=yes)
        watched(client, "import_stripe_account", {}, run, wait=wait, as_json=as_json)


@app.command("runs", epilog=examples("nest stripe runs"))
def list_runs(data: Data = Path(".nest"), *, as_json: AsJson = False) -> None:
    """Show the latest runs, those of the clock among them."""
    with said_in_words():
        answer = Client.of(data).call("list_stripe_runs", {})
        show(answer, answer["runs"], RUNS, as_json=as_json)


@app.command(epilog=examples("nest stripe stop striperun_…"))
def stop(run_id: Annotated[str, typer.Argument(help="Which run.")], data: Data = Path(".nest")) -> None:
    """Let a run stop where it is; --run of its verb lets it go on."""
    with said_in_words():
        answer = Client.of(data).call("stop_stripe_run", {"run_id": run_id})
        typer.echo(f"{answer['id']} {answer['status']}")


def _run(data: Path, method: str, asked: dict[str, Any], run_id: str | None, *, wait: bool, as_json: bool) -> None:
    with said_in_words():
        watched(Client.of(data), method, asked, run_id, wait=wait, as_json=as_json)


def _utc(moment: datetime) -> str:
    return moment.replace(tzinfo=UTC).isoformat()
