"""People: search, and one person's identifiers and sessions."""

from __future__ import annotations

from typing import Final

from services.gateway.console.pages import Link, PageTable, Visit
from services.gateway.responses import HttpResponse

PATH: Final = "/console/people"
PEOPLE: Final = PageTable(Link("People", "People", PATH))


@PEOPLE.page(f"{PATH}/{{user_id}}")
async def person(visit: Visit) -> HttpResponse:
    """One person."""
    user_id = visit.path["user_id"]
    user = await visit.call("get_user", user_id=user_id)
    sessions = await visit.call("list_sessions", user_id=user_id)
    return visit.page("person.html", user=user, sessions=sessions)


@PEOPLE.act(f"{PATH}/{{user_id}}/end-sessions", page=person)
async def end_sessions(visit: Visit) -> HttpResponse:
    """End one session, or all."""
    user_id, session_id = visit.path["user_id"], visit.form.get("session_id")
    selection = {"session_id": session_id} if session_id else {"which": "all"}
    ended = (await visit.call("revoke_sessions", user_id=user_id, **selection))["ended"]
    return visit.done(f"{PATH}/{user_id}", f"Sessions ended: {ended}.")
