"""Lists of the console: filters, a table and links to further pages, each declared by its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, Literal

from services.gateway.console.calls import CallRefused
from services.gateway.console.pages import PAGE_SIZE, Visit
from services.gateway.responses import HttpResponse

Row = Mapping[str, Any]
TONES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("active", "delivered", "done", "repaired", "replayed", "running", "succeeded", "won"), "good"),
    **dict.fromkeys(
        (
            "handed_over",
            "incomplete",
            "ordered",
            "past_due",
            "pending",
            "published",
            "queued",
            "rebalancing",
            "suppressed",
        ),
        "warn",
    ),
    **dict.fromkeys(("suspected", "too_old", "trialing", "undecodable", "verify", "waiting", "needs_response"), "warn"),
    **dict.fromkeys(("away", "bounced", "complaint", "failed", "failing", "found", "given_up", "lost"), "bad"),
    **dict.fromkeys(("canceled", "refused", "unauthenticated", "unpaid", "requires_payment_method"), "bad"),
}
"""Tone of the badge of a state; other states have a neutral one."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A field of a list's form, named as the field of the method.

    Attributes:
        name: of the field and of the query parameter.
        label: above it.
        kind: a text, one of ``choices``, or a time in UTC.
        hint: placeholder of a text.
    """

    name: str
    label: str
    kind: Literal["text", "choice", "time"] = "text"
    choices: Sequence[str] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        value: name of the field, or a function of the row.
        kind: ``text``, ``long`` for texts that wrap anywhere, ``code`` for IDs, ``state`` for a badge, ``time``, or
            ``number``.
        link: path that the cell leads to, with ``{}`` for the value, or a function of the row; empty for none.
    """

    title: str
    value: str | Callable[[Row], Any]
    kind: Literal["text", "long", "code", "state", "time", "number"] = "text"
    link: str | Callable[[Row], str] = ""

    def of(self, row: Row) -> Any:
        """The value of a row's cell."""
        return row[self.value] if isinstance(self.value, str) else self.value(row)

    def target(self, row: Row) -> str:
        """The path that a row's cell leads to; empty for none."""
        value = self.of(row)
        if not self.link or not value:
            return ""
        return self.link.format(value) if isinstance(self.link, str) else self.link(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPage:
    """A list.

    Attributes:
        title: heading of the page.
        intro: what it lists, in a sentence.
        method: the method that lists.
        entries: field of the view with the entries.
        columns: of the table.
        filters: of the form; nothing is shown without any.
        empty: title of the empty list.
        empty_hint: what to do then, in a sentence.
        template: extends ``list.html``.
        filter_field: field of the method that has the filters; empty if they are fields of the method itself.
    """

    title: str
    intro: str
    method: str
    entries: str
    columns: Sequence[Column]
    filters: Sequence[Filter] = ()
    empty: str
    empty_hint: str
    template: str = "list.html"
    filter_field: str = ""

    async def show(self, visit: Visit, **variables: object) -> HttpResponse:
        """Call the method with the filters of the query, and render its entries."""
        rows: Sequence[Row] = ()
        next_cursor, problem = None, ""
        fields = filter_fields(self, visit)
        if self.filter_field:
            fields = {self.filter_field: fields}
        try:
            view = await visit.call(self.method, limit=PAGE_SIZE, cursor=visit.query.get("cursor") or None, **fields)
            rows, next_cursor = view[self.entries], view["next_cursor"]
        except CallRefused as refused:
            problem = explained(visit, refused)
        return visit.page(
            self.template, listing=self, rows=rows, next_cursor=next_cursor, problem=problem, tones=TONES, **variables
        )


def explained(visit: Visit, refused: CallRefused) -> str:
    """The sentence of a refusal that a page shows beside its filters, which most refusals are about.

    The page has the status of the refusal, except for htmx, which swaps no error into a page.
    """
    if visit.status == HTTPStatus.OK and b"hx-request" not in visit.request.headers:
        visit.status = refused.status
    return refused.sentence


def filter_fields(page: ListPage, visit: Visit) -> dict[str, Any]:
    """The fields of the method that the query's filters set."""
    chosen = [(each, visit.query.get(each.name, "").strip()) for each in page.filters]
    return {each.name: utc_time(value) if each.kind == "time" else value for each, value in chosen if value}


def utc_time(text: str) -> str:
    """The time of an ``<input type=datetime-local>``, whose reader means UTC, as RFC 3339.

    A text of another form is returned unchanged: the method refuses it.
    """
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).isoformat()
    except ValueError:
        return text


def local_time(text: str | None) -> str:
    """A time of a view as the value of an ``<input type=datetime-local>``, to the minute; empty for None."""
    return "" if text is None else text[:16]
