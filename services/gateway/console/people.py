"""People: list and search, one person's page with everything that Nest knows, exports and erasures."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from services.gateway.console.calls import CallRefused
from services.gateway.console.pages import PAGE_SIZE, Link, PageTable, Visit, download
from services.gateway.responses import HttpResponse
from shared.money import format_amount

PATH: Final = "/console/people"
PEOPLE: Final = PageTable(Link("People", "People", PATH))
SHOWN: Final = 20
"""Entries of each list on a person's page."""
ERASE_WORD: Final = "erase"
"""Word that confirms an erasure."""
OUTCOMES: Final = {
    "read": ("read and recorded", "good"),
    "missing": ("not in Stripe", "warn"),
    "refused": ("refused by Stripe", "bad"),
    "nobody": ("no person found", "warn"),
    "erased": ("person erased", ""),
    "other_account": ("of another account", ""),
    "other_product": ("of another product", ""),
    "other_mode": ("of the other mode, live or test", ""),
    "not_followed": ("not followed", ""),
}
"""Outcomes of Stripe's events in words, each with the tone of its dot."""
MAX_EXPORT_PAGES: Final = 1_000
_SEARCH_CHARACTERS: Final = 254
_PLAIN_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a page: the view of its method, or a sentence if the method was refused."""

    view: Any = None
    error: str = ""


@PEOPLE.page(PATH)
async def people(visit: Visit) -> HttpResponse:
    """All people, the newest first, or those whose addresses match a search."""
    search = visit.query.get("search", "").strip()[:_SEARCH_CHARACTERS]
    view: dict[str, Any] = {"users": [], "next_cursor": None}
    try:
        view = await visit.call(
            "list_users", search=search or None, limit=PAGE_SIZE, cursor=visit.query.get("cursor") or None
        )
    except CallRefused as refused:
        # The field stays on the page with what was typed.
        visit.error, visit.status = refused.sentence, refused.status
    return visit.page("people.html", users=view["users"], next_cursor=view["next_cursor"], search=search)


@PEOPLE.page(f"{PATH}/{{user_id}}")
async def person(visit: Visit) -> HttpResponse:
    """One person. Parts whose service does not answer say so, and the others are shown."""
    user_id = visit.path["user_id"]
    user = await visit.call("get_user", user_id=user_id)
    addresses = [each["identifier_value"] for each in user["identifiers"] if not each["removed_at"]]
    sessions, state, history, events, payments, audit, *deliveries = await asyncio.gather(
        _part(visit, "list_sessions", user_id=user_id),
        _part(visit, "get_customer_state", user_id=user_id),
        _part(visit, "list_billing_history", user_id=user_id, limit=SHOWN),
        _part(visit, "list_stripe_events", user_id=user_id, limit=SHOWN),
        _part(visit, "list_payments", user_id=user_id, limit=SHOWN),
        _part(visit, "list_audit_entries", user_id=user_id, limit=SHOWN),
        *(_part(visit, "list_deliveries", recipient=address, limit=SHOWN) for address in addresses[:SHOWN]),
    )
    mails = [delivery for part in deliveries if part.view for delivery in part.view["deliveries"]]
    return visit.page(
        "person.html",
        user=user,
        money=format_amount,
        name=addresses[0] if addresses else user_id,
        sessions=sessions,
        state=state,
        history=history,
        events=events,
        outcomes=OUTCOMES,
        payments=payments,
        audit=audit,
        mails=sorted(mails, key=lambda each: str(each["created_at"]), reverse=True)[:SHOWN],
        mails_error=next((part.error for part in deliveries if part.error), ""),
        erase_word=ERASE_WORD,
    )


async def _part(visit: Visit, method: str, **fields: Any) -> Part:
    try:
        return Part(await visit.call(method, **fields))
    except CallRefused as refused:
        return Part(error=refused.sentence)


@PEOPLE.act(f"{PATH}/{{user_id}}/end-sessions", page=person)
async def end_sessions(visit: Visit) -> HttpResponse:
    """End one session, or all."""
    user_id, session_id = visit.path["user_id"], visit.form.get("session_id")
    selection = {"session_id": session_id} if session_id else {"which": "all"}
    ended = (await visit.call("revoke_sessions", user_id=user_id, **selection))["ended"]
    return visit.done(f"{PATH}/{user_id}", "One session was ended." if ended == 1 else f"{ended} sessions were ended.")


@PEOPLE.act(f"{PATH}/{{user_id}}/resend", page=person)
async def resend(visit: Visit) -> HttpResponse:
    """Mail the last login link again."""
    await visit.call("resend_magic_link", user_id=visit.path["user_id"])
    return visit.done(f"{PATH}/{visit.path['user_id']}", "The login link is on its way again.")


@PEOPLE.act(f"{PATH}/{{user_id}}/reconcile", page=person)
async def reconcile(visit: Visit) -> HttpResponse:
    """Read the person's subscriptions from Stripe."""
    count = (await visit.call("reconcile_user", user_id=visit.path["user_id"]))["subscriptions"]
    sentence = f"Nest reads {count} from Stripe. Reload the page in a moment." if count else "There is no subscription."
    return visit.done(f"{PATH}/{visit.path['user_id']}", sentence, tone="good" if count else "warn")


@PEOPLE.act(f"{PATH}/{{user_id}}/export", page=person)
async def export(visit: Visit) -> HttpResponse:
    """Start an export, and show its progress."""
    process = await visit.call("export_user", user_id=visit.path["user_id"])
    return visit.done(_process_path(process), "The export has begun.")


@PEOPLE.act(f"{PATH}/{{user_id}}/erase", page=person)
async def erase(visit: Visit) -> HttpResponse:
    """Start an erasure, if the word was typed, and show its progress."""
    if visit.form.get("word", "").strip().lower() != ERASE_WORD:
        visit.error, visit.status = f"Type “{ERASE_WORD}” to erase this person. Nothing was erased.", 422
        return await person(visit)
    process = await visit.call(
        "erase_user",
        user_id=visit.path["user_id"],
        delete_stripe_customer=visit.form.get("delete_stripe_customer") == "true",
    )
    return visit.done(_process_path(process), "The erasure has begun.")


@PEOPLE.page(f"{PATH}/processes/{{process_id}}")
async def process_page(visit: Visit) -> HttpResponse:
    """The progress of an export or erasure; it updates itself while it runs."""
    return visit.page("process.html", process=await visit.call("get_user_process", process_id=visit.path["process_id"]))


@PEOPLE.page(f"{PATH}/processes/{{process_id}}/export.json")
async def exported(visit: Visit) -> HttpResponse:
    """The document of a finished export, merged from its pages, as a file."""
    document: dict[str, Any] = {}
    cursor: int | None = 0
    for _ in range(MAX_EXPORT_PAGES):
        page = await visit.call("get_user_export", process_id=visit.path["process_id"], cursor=cursor)
        cursor = page.pop("next_cursor")
        services = document.setdefault("services", {})
        for service, collections in page.pop("services").items():
            for collection, documents in collections.items():
                services.setdefault(service, {}).setdefault(collection, []).extend(documents)
        document.update(page)
        if cursor is None:
            break
    name = _PLAIN_NAME.sub("", document["user_id"])
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return download(text.encode(), f"{name}.json", "application/json", visit.operator.headers)


def _process_path(process: dict[str, Any]) -> str:
    return f"{PATH}/processes/{process['id']}"
