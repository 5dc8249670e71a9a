"""Pages of the running system: the live picture, and paused partitions."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.console.calls import CallRefused
from services.gateway.console.pages import Link, PageTable, Visit
from services.gateway.responses import HttpResponse

SYSTEM: Final = PageTable(Link("Operation", "System", "/console/system"))
PARTITIONS: Final = PageTable(Link("Operation", "Paused partitions", "/console/partitions"))
LATEST_FAILURES: Final = 5


@SYSTEM.page("/console/system")
async def system(visit: Visit) -> HttpResponse:
    """The live picture, as this gateway sees it, and the last failures.

    What a service must answer may be missing while the gateway's own part is shown.
    """
    state = await visit.call("get_system_state")
    return visit.page(
        "system.html",
        state=state,
        paused=await _or_problem(visit, "list_paused_partitions"),
        letters=await _or_problem(visit, "list_dead_letters", limit=LATEST_FAILURES),
        runs=await _or_problem(visit, "list_stripe_runs", limit=LATEST_FAILURES),
    )


@SYSTEM.page("/console/system/live")
async def live(visit: Visit) -> HttpResponse:
    """The part of the page that is refreshed. It calls nothing that makes audit entries or reads much."""
    return visit.page("system_live.html", state=await visit.call("get_system_state"))


@PARTITIONS.page("/console/partitions")
async def partitions(visit: Visit) -> HttpResponse:
    """The partitions that services have paused."""
    view = await visit.call("list_paused_partitions")
    return visit.page("partitions.html", partitions=view["partitions"])


@PARTITIONS.act("/console/partitions/resume", page=partitions)
async def resume(visit: Visit) -> HttpResponse:
    """Resume a partition."""
    await visit.call(
        "resume_partition", id=visit.form.get("id", ""), dead_letter=visit.form.get("dead_letter") == "yes"
    )
    return visit.done("/console/partitions", f"{visit.form['id']} is resumed at its first waiting record.")


async def _or_problem(visit: Visit, method: str, **fields: Any) -> dict[str, Any]:
    """The view of a method; if its service does not answer, an object with the ``problem`` alone."""
    try:
        view: dict[str, Any] = await visit.call(method, **fields)
    except CallRefused as refused:
        return {"problem": refused.sentence}
    return {"problem": "", **view}
