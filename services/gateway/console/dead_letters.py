"""Pages of dead letters: why each was put aside, its content, and replays."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, get_args
from urllib.parse import quote

from services.gateway.console.deliveries import PERIOD
from services.gateway.console.lists import Column, Filter, ListPage, filter_fields
from services.gateway.console.pages import Link, PageTable, Visit
from services.gateway.responses import HttpResponse
from shared.bus.topics import SERVICES, TOPICS
from shared.messages.auth.dead_letters import Outcome, Reason
from shared.tracing import unrecorded_traceparent

DEAD_LETTERS: Final = PageTable(Link("Operation", "Dead letters", "/console/dead-letters"))
PATH: Final = "/console/dead-letters"
REPLAY_PAGE: Final = 100
"""Dead letters that one request replays."""
OUTCOMES: Final[Mapping[Outcome, str]] = {
    "replayed": "replayed",
    "replayed_before": "skipped: replayed before",
    "too_old": "skipped: older than the inbox, so they may have been handled",
    "not_ours": "skipped: not written by Nest",
    "closed": "skipped: sealed with a key that is gone",
    "gone": "not found any more",
}


def trace_id(letter: Mapping[str, Any]) -> str | None:
    """Return the trace ID of a dead-lettered message (W3C Trace Context section 3.2.2.3), or None without a trace.

    A message without the header ``traceparent`` has its request ID as its trace ID.
    """
    values = {header["name"]: str((header["value"] or {}).get("text") or "") for header in letter["headers"]}
    trace = values.get("traceparent") or unrecorded_traceparent(values.get("request-id", ""))
    return trace.split("-")[1] if "-" in trace else None


LETTER_LIST: Final = ListPage(
    title="Dead letters",
    intro="Messages that a service could not handle, newest first. They are kept for 30 days.",
    method="list_dead_letters",
    entries="letters",
    columns=(
        Column("Dead since", "put_aside_at", "time"),
        Column("Letter", "id", "code", lambda row: path_of(row["id"])),
        Column("Service", "service"),
        Column("Reason", "reason", "state"),
        Column("Error", "detail", "long"),
        Column("Type", "type"),
        Column("Trace", trace_id, "code"),
        Column("Replayed", lambda row: "replayed" if row["replayed_at"] else None, "state"),
    ),
    filters=(
        Filter("service", "Service", "choice", SERVICES),
        Filter("reason", "Reason", "choice", get_args(Reason)),
        Filter("topic", "Topic", "choice", sorted(topic.name for topic in TOPICS if topic.consumed)),
        Filter("type", "Type", hint="mailer.send-mail"),
        *PERIOD,
    ),
    empty="No dead letter",
    empty_hint="Every message of the last 30 days was handled.",
    template="dead_letters.html",
    filter_field="filter",
)


@DEAD_LETTERS.page(PATH)
async def dead_letters(visit: Visit) -> HttpResponse:
    """The dead letters that match a filter."""
    return await LETTER_LIST.show(visit, chosen=filter_fields(LETTER_LIST, visit))


@DEAD_LETTERS.act(f"{PATH}/replay", page=dead_letters)
async def replay_all(visit: Visit) -> HttpResponse:
    """Replay the next part of all letters that match a filter; the page goes on by itself until none is left."""
    form = visit.form
    view = await visit.call(
        "replay_dead_letters",
        filter={each.name: form[each.name] for each in LETTER_LIST.filters if form.get(each.name)},
        limit=REPLAY_PAGE,
        cursor=form.get("cursor") or None,
        **_options(form),
    )
    counts = Counter({each: int(form.get(f"count_{each}") or 0) for each in OUTCOMES})
    counts.update(letter["outcome"] for letter in view["letters"])
    fields = {name: value for name, value in form.items() if name not in {"cursor", "csrf", "once"}}
    fields |= {f"count_{outcome}": str(count) for outcome, count in counts.items()}
    return visit.page(
        "dead_letters_replayed.html", counts=counts, outcomes=OUTCOMES, next_cursor=view["next_cursor"], fields=fields
    )


@DEAD_LETTERS.page(f"{PATH}/{{id}}")
async def letter(visit: Visit) -> HttpResponse:
    """A dead letter with its headers and a piece of its body."""
    start = visit.query.get("from", "")
    view = await visit.call(
        "list_dead_letters", id=visit.path["id"], body_from=int(start) if start.isdecimal() else None
    )
    found = view["letters"][0]
    body = found["body"]
    shown = None if body is None else octets(body)
    after = None if body is None else body["start"] + len(_content(body))
    return visit.page(
        "dead_letter.html",
        letter=found,
        path=path_of(found["id"]),
        trace=trace_id(found),
        body=shown,
        further=after if body is not None and after is not None and after < body["size"] else None,
        octets=octets,
    )


@DEAD_LETTERS.act(f"{PATH}/{{id}}/replay", page=letter)
async def replay(visit: Visit) -> HttpResponse:
    """Replay one dead letter."""
    view = await visit.call("replay_dead_letters", ids=[visit.path["id"]], **_options(visit.form))
    outcome = view["letters"][0]["outcome"]
    sentence = "The message is on its topic again." if outcome == "replayed" else f"Not replayed: {OUTCOMES[outcome]}."
    return visit.done(path_of(visit.path["id"]), sentence, tone="good" if outcome == "replayed" else "warn")


def path_of(letter_id: str) -> str:
    """The path of a dead letter's page."""
    return f"{PATH}/{quote(letter_id, safe='')}"


def octets(value: Mapping[str, Any]) -> str:
    """Bytes as text for the page; what is not UTF-8 is escaped."""
    content = _content(value)
    text = content.decode("utf-8", "backslashreplace")
    left = value["size"] - value["start"] - len(content)
    return f"{text} … ({left:,} bytes more)" if left > 0 else text


def _content(value: Mapping[str, Any]) -> bytes:
    return base64.b64decode(value["base64"]) if value["text"] is None else str(value["text"]).encode()


def _options(form: Mapping[str, str]) -> dict[str, bool]:
    return {name: form.get(name) == "yes" for name in ("again", "although_too_old")}
