"""Pages of Stripe runs: starting, watching, stopping and resuming them, and the differences that they found."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from services.gateway.console.calls import CallRefused
from services.gateway.console.lists import TONES, utc_time
from services.gateway.console.pages import PAGE_SIZE, Link, PageTable, Visit
from services.gateway.responses import HttpResponse

RUNS: Final = PageTable(Link("Stripe", "Stripe runs", "/console/stripe/runs"))
PATH: Final = "/console/stripe/runs"
UNFINISHED: Final = frozenset({"running", "waiting"})
MAX_RUNS: Final = 50


@RUNS.page(PATH)
async def runs(visit: Visit) -> HttpResponse:
    """The latest runs, also the scheduled ones."""
    view = await visit.call("list_stripe_runs", limit=MAX_RUNS)
    return visit.page("stripe_runs.html", runs=view["runs"], tones=TONES)


@RUNS.act(f"{PATH}/verify", page=runs)
async def verify(visit: Visit) -> HttpResponse:
    """Start a comparison, with or without repairs."""
    run = await visit.call(
        "reconcile_subscriptions",
        repair=visit.form.get("repair") == "yes",
        changed_within_hours=_number(visit, "changed_within_hours"),
    )
    return _started(visit, run)


@RUNS.act(f"{PATH}/sweep", page=runs)
async def sweep(visit: Visit) -> HttpResponse:
    """Start to fetch the events that Stripe could not deliver."""
    return _started(visit, await visit.call("sweep_stripe_events", days=_number(visit, "days")))


@RUNS.act(f"{PATH}/replay", page=runs)
async def replay(visit: Visit) -> HttpResponse:
    """Start to process events again."""
    form = visit.form
    run = await visit.call(
        "replay_stripe_events",
        event_ids=form.get("event_ids", "").split(),
        types=form.get("types", "").split(),
        since=utc_time(form["since"]) if form.get("since") else None,
        until=utc_time(form["until"]) if form.get("until") else None,
        kept=form.get("kept") == "yes",
    )
    return _started(visit, run)


@RUNS.act(f"{PATH}/import", page=runs)
async def import_account(visit: Visit) -> HttpResponse:
    """Start to import the account."""
    return _started(visit, await visit.call("import_stripe_account"))


@RUNS.page(f"{PATH}/{{id}}")
async def run(visit: Visit) -> HttpResponse:
    """A run with its progress and differences."""
    state = await visit.call("get_stripe_run", run_id=visit.path["id"])
    found: dict[str, Any] = {"differences": (), "next_cursor": None}
    problem = ""
    try:
        found = await visit.call(
            "list_stripe_differences",
            run_id=visit.path["id"],
            limit=PAGE_SIZE,
            cursor=visit.query.get("cursor") or None,
        )
    except CallRefused as refused:
        problem = refused.sentence
    return visit.page(
        "stripe_run.html",
        differences=found["differences"],
        next_cursor=found["next_cursor"],
        problem=problem,
        refreshed=False,
        **_progress(state),
    )


@RUNS.page(f"{PATH}/{{id}}/progress")
async def progress(visit: Visit) -> HttpResponse:
    """The part of the page that is refreshed. It makes no audit entries."""
    state = await visit.call("get_stripe_run", run_id=visit.path["id"])
    return visit.page("stripe_run_progress.html", refreshed=True, **_progress(state))


@RUNS.act(f"{PATH}/{{id}}/stop", page=run)
async def stop(visit: Visit) -> HttpResponse:
    """Stop a run."""
    await visit.call("stop_stripe_run", run_id=visit.path["id"])
    return visit.done(path_of(visit.path["id"]), "The run is stopped. It can be resumed where it is.")


@RUNS.act(f"{PATH}/{{id}}/resume", page=run)
async def resume(visit: Visit) -> HttpResponse:
    """Resume a run."""
    await visit.call("resume_stripe_run", run_id=visit.path["id"])
    return visit.done(path_of(visit.path["id"]), "The run continues.")


def path_of(run_id: str) -> str:
    """The path of a run's page."""
    return f"{PATH}/{quote(run_id, safe='')}"


def duration(seconds: int) -> str:
    """``40 s``, ``12 min`` or ``2 h 5 min``."""
    if seconds < 100:  # noqa: PLR2004 -- more than a minute and a half is written in minutes
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 -- as above


def _progress(state: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": state,
        "path": path_of(state["id"]),
        "unfinished": state["status"] in UNFINISHED,
        "duration": duration,
        "tones": TONES,
    }


def _started(visit: Visit, started: dict[str, Any]) -> HttpResponse:
    return visit.done(path_of(started["id"]), "The run has started.")


def _number(visit: Visit, name: str) -> int | None:
    text = visit.form.get(name, "").strip()
    return int(text) if text.isdecimal() else None
