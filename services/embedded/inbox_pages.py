"""The inbox over HTTP: its page, its JSON API and its events (docs/inbox.md).

Requests that a page of another origin makes are refused, so that no web site reads or empties the inbox.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from functools import wraps
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from services.embedded.arrivals import (
    MAX_SEARCH,
    Arrival,
    attachments_of,
    framed,
    headers_of,
    read_mail,
    with_images,
)
from services.embedded.mail_inbox import Inbox, UnknownArrival
from shared.pages.pages import HTML, Pages, page_headers
from shared.pages.request_checks import is_same_origin

MAX_WAIT_SECONDS: Final = 60.0
MAX_LISTENERS: Final = 50
"""Streams of events, and as many waiting requests."""
SHOWN: Final = 100
"""Arrivals on the page, before a press on "Show more"."""
MAX_SOURCE: Final = 200_000
"""Characters of a mail's source on the page; the link below it has all."""
MAX_TO: Final = 1_000
TABS: Final = ("html", "text", "source", "headers", "links", "attachments")

# With `no-referrer`, forms would have no origin to check.
_HEADERS: Final = page_headers(referrer="same-origin", frame_src="'self'")
# A mail may be deleted just before its frame loads.
_REFUSED_HEADERS: Final = page_headers(frame_ancestors="'self'")
# A mail may use its own styles and embedded images, but runs no scripts and loads nothing.
_MAIL_HEADERS: Final = page_headers() | {
    "content-security-policy": (
        "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline';"
        " img-src data:; frame-ancestors 'self'"
    )
}
_FILE_HEADERS: Final = page_headers() | {"content-security-policy": "sandbox; default-src 'none'"}
_EVENT_HEADERS: Final = page_headers() | {"x-accel-buffering": "no"}

# Not every program drops the folders of a name, as RFC 6266, section 4.3, demands.
_NOT_IN_FILE_NAME: Final = re.compile(r"[\x00-\x1f\x7f/\\]")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,4}")

Endpoint = Callable[[Request], Any]


class _Refused(Exception):
    """A request that is not answered.

    Args:
        status: the HTTP status.
        code: a stable word for programs.
        message: one sentence that says what is wrong and what to do.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.response = JSONResponse({"code": code, "message": message}, status, _REFUSED_HEADERS)


class InboxPages:
    """The routes of the inbox.

    Args:
        inbox: the mails and texts.
        pages: the templates.
    """

    def __init__(self, inbox: Inbox, pages: Pages) -> None:
        self._inbox = inbox
        self._pages = pages
        self._listeners = 0
        self._waiting = 0
        self.routes = [
            Route("/dev/inbox", _answering(self._page)),
            Route("/dev/inbox.json", _answering(self._list)),
            Route("/dev/inbox.json", _answering(self._delete_matching), methods=["DELETE"]),
            Route("/dev/inbox/events", _answering(self._events)),
            Route("/dev/inbox/delete", _answering(self._delete_form), methods=["POST"]),
            Route("/dev/inbox/{arrival_id}.json", _answering(self._one)),
            Route("/dev/inbox/{arrival_id}", _answering(self._html)),
            Route("/dev/inbox/{arrival_id}", _answering(self._delete), methods=["DELETE"]),
            Route("/dev/inbox/{arrival_id}/source", _answering(self._source)),
            Route("/dev/inbox/{arrival_id}/attachments/{number:int}", _answering(self._attachment)),
        ]

    async def _page(self, request: Request) -> Response:
        """Show the list, and with `?mail=<id>` that arrival in the tab `?tab=`, which marks it as read."""
        query = request.query_params
        search, kind, shown = query.get("search", "")[:MAX_SEARCH], _kind(query, "page"), _shown(query)
        chosen = self._inbox.find(query.get("mail", ""))
        if chosen:
            self._inbox.mark_read(chosen.id)
        arrivals = self._inbox.arrivals(kind=kind, search=search)
        everything = self._inbox.arrivals()
        kept = {"search": search, "kind": kind or "", "shown": str(shown) if shown != SHOWN else ""}

        def url(**changed: str) -> str:
            parameters = {name: value for name, value in (kept | changed).items() if value}
            return f"/dev/inbox?{urlencode(parameters)}" if parameters else "/dev/inbox"

        text = self._pages.render(
            "inbox.html",
            arrivals=arrivals[:shown],
            found=len(arrivals),
            total=len(everything),
            unread=sum(not each.read for each in everything),
            search=search,
            kind=kind,
            chosen=chosen,
            missing="mail" in query and chosen is None,
            url=url,
            more=url(shown=str(shown + SHOWN)),
            last_change=self._inbox.last_change,
            inbox_url=f"{request.base_url}dev/inbox",
            **(self._pane(chosen, query.get("tab")) if chosen else {}),
        )
        return Response(text, 200, _HEADERS, HTML)

    def _pane(self, arrival: Arrival, tab: str | None) -> dict[str, object]:
        """Return the variables of the template that show one arrival."""
        tabs = [each for each in TABS if _has(arrival, each)]
        tab = tab if tab in tabs else tabs[0]
        source = self._inbox.source(arrival.id) if tab in {"source", "headers"} else None
        return {
            "tabs": tabs,
            "tab": tab,
            "source": None if source is None else source[:MAX_SOURCE].decode("utf-8", "replace"),
            "cut": source is not None and len(source) > MAX_SOURCE,
            "headers": [] if source is None else headers_of(read_mail(source)),
            "first": next((link for link in arrival.links if "/unsubscribe/" not in link), None),
        }

    async def _list(self, request: Request) -> Response:
        """List arrivals, newest first; with `wait` once there are any."""
        query = request.query_params
        filters, wait, limit = _filters(query), _wait(query), _limit(query)
        try:
            arrivals = await self._wait_for(request, wait, filters) if wait else self._inbox.arrivals(**filters)
        except UnknownArrival:
            message = "No arrival has the ID in after; leave it out to get all."
            raise _Refused(404, "arrival_not_found", message) from None
        return JSONResponse([asdict(arrival) for arrival in arrivals[:limit]], headers=_HEADERS)

    async def _wait_for(self, request: Request, seconds: float, filters: dict[str, Any]) -> list[Arrival]:
        """Wait until there is a match, the time is over, or the caller has gone, whose place another one needs."""
        if self._waiting >= MAX_LISTENERS:
            raise _Refused(503, "too_many_listeners", f"{MAX_LISTENERS} requests are waiting; end one of them first.")
        self._waiting += 1
        waiting = asyncio.create_task(self._inbox.wait_for(seconds, **filters))
        gone = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
            return await waiting if waiting.done() else []
        finally:
            waiting.cancel()
            gone.cancel()
            self._waiting -= 1

    async def _one(self, request: Request) -> Response:
        arrival = self._find(request)
        source = self._inbox.source(arrival.id)
        headers = [] if source is None else headers_of(read_mail(source))
        fields = asdict(arrival) | {"headers": [{"name": name, "value": value} for name, value in headers]}
        return JSONResponse(fields, headers=_HEADERS)

    async def _html(self, request: Request) -> Response:
        """Show the HTML of a mail with its images in a frame of the inbox page; its links open in a new tab."""
        arrival = self._find(request)
        if not arrival.html:
            raise _Refused(404, "no_html", "This arrival has no HTML; its text is in its JSON.")
        html, source = framed(arrival.html), self._inbox.source(arrival.id)
        if source is not None:
            html = with_images(html, read_mail(source))
        return Response(html, 200, _MAIL_HEADERS, HTML)

    async def _source(self, request: Request) -> Response:
        source = self._source_of(self._find(request))
        return Response(source, 200, _FILE_HEADERS, "text/plain; charset=utf-8")

    async def _attachment(self, request: Request) -> Response:
        """Return an attachment as a download, whatever its type is."""
        message = read_mail(self._source_of(self._find(request)))
        number: int = request.path_params["number"]
        for index, (attachment, content) in enumerate(attachments_of(message)):
            if index == number:
                name = quote(_NOT_IN_FILE_NAME.sub("_", attachment.name), safe="")
                headers = _FILE_HEADERS | {"content-disposition": f"attachment; filename*=utf-8''{name}"}
                return Response(content, 200, headers, "application/octet-stream")
        raise _Refused(404, "attachment_not_found", "This mail has no attachment with this number; they begin at 0.")

    async def _delete(self, request: Request) -> Response:
        self._inbox.delete([self._find(request).id])
        return Response(status_code=204, headers=_HEADERS)

    async def _delete_matching(self, request: Request) -> Response:
        """Delete everything that `_list` would return; everything without a filter."""
        try:
            found = self._inbox.arrivals(**_filters(request.query_params))
        except UnknownArrival:
            raise _Refused(404, "arrival_not_found", "No arrival has the ID in after.") from None
        return JSONResponse({"deleted": self._inbox.delete(each.id for each in found)}, headers=_HEADERS)

    async def _delete_form(self, request: Request) -> Response:
        """Delete `?mail=<id>`, or without it what the page lists; then show the rest."""
        query = request.query_params
        kept = {name: query[name] for name in ("search", "kind") if query.get(name)}
        found = self._inbox.arrivals(kind=_kind(query, "page"), search=query.get("search", "")[:MAX_SEARCH])
        self._inbox.delete([query["mail"]] if "mail" in query else [each.id for each in found])
        target = f"/dev/inbox?{urlencode(kept)}" if "mail" in query and kept else "/dev/inbox"
        return RedirectResponse(target, 303, _HEADERS)

    async def _events(self, request: Request) -> Response:
        """Stream the changes of the inbox as server-sent events, those since `Last-Event-ID` first."""
        if self._listeners >= MAX_LISTENERS:
            message = f"{MAX_LISTENERS} programs or tabs follow the inbox; close one of them first."
            raise _Refused(503, "too_many_listeners", message)
        after = request.headers.get("last-event-id") or request.query_params.get("last_event_id") or None
        return StreamingResponse(self._stream(after), headers=_EVENT_HEADERS, media_type="text/event-stream")

    async def _stream(self, after: str | None) -> AsyncIterator[str]:
        self._listeners += 1
        try:
            # A listener that knows no change begins with the newest one; without data, no event reaches the page.
            yield "retry: 1000\n\n" if after else f"retry: 1000\nid: {self._inbox.last_change}\n\n"
            async for change in self._inbox.changes(after):
                if change is None:
                    yield ": nothing new\n\n"
                else:
                    yield f"id: {change.id}\nevent: {change.event}\ndata: {json.dumps(change.data)}\n\n"
        finally:
            self._listeners -= 1

    def _find(self, request: Request) -> Arrival:
        arrival = self._inbox.find(request.path_params["arrival_id"])
        if arrival is None:
            raise _Refused(404, "arrival_not_found", "No arrival has this ID; it may have been deleted.")
        return arrival

    def _source_of(self, arrival: Arrival) -> bytes:
        source = self._inbox.source(arrival.id)
        if source is None:
            raise _Refused(404, "no_source", "The inbox keeps the source of mails only, since this release.")
        return source


def _answering(endpoint: Endpoint) -> Endpoint:
    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            _refuse_foreign(request)
            response: Response = await endpoint(request)
        except _Refused as refused:
            return refused.response
        return response

    return answer


def _refuse_foreign(request: Request) -> None:
    """Refuse a request of a page of another origin, except that it may link to the pages."""
    linked = request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"
    if not linked and not is_same_origin(request.headers):
        raise _Refused(403, "foreign_origin", "Only the inbox's own page and programs may do this, no other web page.")


async def _gone(request: Request) -> None:
    """Wait until the caller has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _has(arrival: Arrival, tab: str) -> bool:
    if tab in {"source", "headers"}:
        return arrival.kind == "mail"
    if tab == "text":
        return bool(arrival.text) or not arrival.html
    return bool({"html": arrival.html, "links": arrival.links, "attachments": arrival.attachments}[tab])


def _kind(query: QueryParams, where: Literal["page", "api"]) -> Literal["mail", "text"] | None:
    match query.get("kind") or None:
        case "mail" | "text" as kind:
            return kind
        case None:
            return None
    if where == "page":
        return None
    raise _Refused(400, "invalid_query", "kind is mail or text.")


def _filters(query: QueryParams) -> dict[str, Any]:
    to, search = query.get("to") or None, query.get("search", "")
    if to and to.startswith(" "):
        # The plus of a phone number, which was not escaped.
        to = f"+{to[1:]}"
    if to and len(to) > MAX_TO:
        raise _Refused(400, "invalid_query", f"to has at most {MAX_TO} characters.")
    if len(search) > MAX_SEARCH:
        raise _Refused(400, "invalid_query", f"search has at most {MAX_SEARCH} characters.")
    return {"to": to, "kind": _kind(query, "api"), "search": search, "after": query.get("after") or None}


def _wait(query: QueryParams) -> float:
    """The seconds to wait, 60 at most."""
    try:
        seconds = float(query.get("wait") or 0)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise _Refused(400, "invalid_query", f"wait is a number of seconds, from 0 to {MAX_WAIT_SECONDS:g}.")
    return min(seconds, MAX_WAIT_SECONDS)


def _limit(query: QueryParams) -> int | None:
    text = query.get("limit") or ""
    if text and not _COUNT.fullmatch(text):
        raise _Refused(400, "invalid_query", "limit is a whole number from 1 to 99999.")
    return int(text) if text else None


def _shown(query: QueryParams) -> int:
    text = query.get("shown", "")
    return max(SHOWN, int(text)) if _COUNT.fullmatch(text) else SHOWN
