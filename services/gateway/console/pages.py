"""Pages of the console: the table of pages and acts, what each gets, and how refusals reach the reader.

To add pages, write a module beside this one and its templates in `templates/`, and add its table to `TABLES` in
`console.py`:

    DELIVERIES = PageTable(Link("Mail", "Deliveries", "/console/deliveries"))

    @DELIVERIES.page("/console/deliveries")
    async def deliveries(visit: Visit) -> HttpResponse:
        view = await visit.call("list_deliveries", limit=PAGE_SIZE, cursor=visit.query.get("cursor"))
        return visit.page("deliveries.html", deliveries=view["deliveries"], next_cursor=view["next_cursor"])

    @DELIVERIES.act("/console/deliveries/{id}/resend", page=deliveries)
    async def resend(visit: Visit) -> HttpResponse:
        await visit.call("resend_delivery", id=visit.path["id"])
        return visit.done("/console/deliveries", "The mail is on its way.")

- A page answers GET and changes nothing. An act answers POST and ends with `visit.done`, which redirects and shows its
  sentence once on the next page.
- Forms need no more than `{{ form_fields() }}` within them: the CSRF token, and a key that makes a double press count
  once. Requests of htmx carry the token in a header.
- A refusal of `visit.call` needs no handling. In an act it shows `page` again, with `error` (a sentence) at its top,
  `field_errors` by field, and the typed values in `form`; in a page it shows an error page. Catch `CallRefused` only
  where a code means something else.
- Templates extend `console.html` and fill its block `content`; macros are in `macros.html` (import them `with context`)
  and `pages/macros.html`. `pager(next_cursor)` links to the next page. Requests of htmx get the same page; use
  `hx-select` for a part of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from starlette.routing import Route

from services.gateway.console.access import CSRF_FIELD, CSRF_HEADER, Access, Operator, PageRefused
from services.gateway.console.calls import CallRefused, Calls
from services.gateway.console.cookies import SealedCookie
from services.gateway.endpoint import Endpoint
from services.gateway.http_calls import call_of
from services.gateway.requests import HttpRequest, Network, client_ip, read_body
from services.gateway.responses import HeaderList, HttpResponse
from shared.messages import Caller
from shared.pages.pages import HTML, Pages, page_headers

GROUP: Final = "console"
"""Label of these routes in metrics."""
HOME: Final = "/console"
LOGIN: Final = "/console/login"
PAGE_SIZE: Final = 50
"""Entries of a list on one page."""
MAX_FORM_BYTES: Final = 256 * 1024
MAX_FORM_FIELDS: Final = 500
MAX_QUERY_FIELDS: Final = 50
_ONCE_FIELD: Final = "once"
_FORM_TYPE: Final = "application/x-www-form-urlencoded"
_HEADERS: Final[HeaderList] = tuple(
    (name.encode(), value.encode()) for name, value in page_headers(referrer="same-origin").items()
)


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of the navigation: its group, its text and its path."""

    group: str
    text: str
    path: str


Show = Callable[["Visit"], Awaitable[HttpResponse]]
"""Answers one request."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A page, or an act with the page that its refusals are shown on."""

    path: str
    show: Show
    verb: str
    page: Show | None = None


@dataclass(slots=True)
class PageTable:
    """Pages and acts of one subject; `link` is its entry in the navigation."""

    link: Link | None = None
    entries: list[Entry] = field(default_factory=list)

    def page(self, path: str) -> Callable[[Show], Show]:
        """Register a page under a path, whose fields in braces are in `visit.path`."""

        def register(show: Show) -> Show:
            self.entries.append(Entry(path, show, "GET"))
            return show

        return register

    def act(self, path: str, *, page: Show) -> Callable[[Show], Show]:
        """Register an act under a path; its refusals are shown on `page`, which gets the same `visit`."""

        def register(show: Show) -> Show:
            self.entries.append(Entry(path, show, "POST", page))
            return show

        return register


@dataclass(frozen=True, slots=True)
class Console:
    """What all pages share."""

    access: Access
    calls: Calls
    pages: Pages
    note: SealedCookie
    links: Sequence[Link]
    trusted_proxies: Sequence[Network]


@dataclass(slots=True)
class Visit:
    """One request to a page or act.

    Attributes:
        path: fields of the path.
        query: last value of each query parameter.
        form: last value of each field of the form; empty for a page.
        error: the refusal of the act that shows this page again, as a sentence.
        field_errors: the same by field of the method.
    """

    console: Console
    request: HttpRequest
    operator: Operator
    path: Mapping[str, str]
    query: dict[str, str]
    form_fields: list[tuple[str, str]] = field(default_factory=list)
    error: str = ""
    field_errors: dict[str, str] = field(default_factory=dict)
    status: int = HTTPStatus.OK
    _calls: int = 0

    @property
    def form(self) -> dict[str, str]:
        """Last value of each field of the form."""
        return dict(self.form_fields)

    def form_list(self, name: str) -> list[str]:
        """All values of a field of the form, without empty ones."""
        return [value for key, value in self.form_fields if key == name and value]

    @property
    def caller(self) -> Caller:
        """Caller of the methods."""
        return self.operator.caller(client_ip(self.request.scope, self.console.trusted_proxies))

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method of the newest version and return its view; fields that are None are left out.

        Raises:
            CallRefused: it was refused. A page or act need not catch it.
        """
        once = self.form.get(_ONCE_FIELD, "")
        self._calls += 1
        # One key for each call of the act; the gateway accepts printable ASCII up to 255 characters.
        key = f"console {once} {self._calls}" if once.isascii() and once.isalnum() and len(once) <= 64 else ""  # noqa: PLR2004
        return await self.console.calls.call(self.request, self.caller, method, fields, idempotency_key=key)

    def page(self, template: str, **variables: object) -> HttpResponse:
        """Render a template as the response."""
        note = self.console.note.read(self.request)
        text = self.console.pages.render(
            template,
            visit=self,
            operator=self.operator,
            links=_grouped(self.console.links),
            here=self.request.scope["path"],
            note=note,
            once=secrets.token_hex(16),
            error=self.error,
            field_errors=self.field_errors,
            form=self.form,
            query=self.query,
            next_page=self._next_page,
            **variables,
        )
        removal = (self.console.note.removal,) if note else ()
        return html_response(text, self.status, (*self.operator.headers, *removal))

    def done(self, location: str, sentence: str, *, tone: str = "good") -> HttpResponse:
        """Redirect to a page that shows a sentence once."""
        note = self.console.note.header({"text": sentence, "tone": tone})
        return redirect(location, (*self.operator.headers, note))

    def _next_page(self, cursor: str) -> str:
        """URL of this page with another cursor."""
        return f"{self.request.scope['path']}?{urlencode({**self.query, 'cursor': cursor})}"


class ConsoleEndpoint(Endpoint):
    """Answers a page or an act: checks access, reads the form, and turns refusals into sentences."""

    def __init__(self, console: Console, entry: Entry) -> None:
        super().__init__((GROUP, entry.path.removeprefix("/console").strip("/") or "home"))
        self._console = console
        self._entry = entry

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Answer one request."""
        console = self._console
        try:
            console.access.check(request)
            operator = await console.access.operator(request)
            if operator is None:
                return login_needed(request)
            visit = Visit(console, request, operator, request.scope["path_params"], query_of(request))
            if self._entry.verb == "POST":
                visit.form_fields = await form_of(request)
                console.access.check_form(visit.form.get(CSRF_FIELD) or request.header(CSRF_HEADER), request)
        except PageRefused as refused:
            return refused_page(console.pages, request, refused)
        try:
            return await self._entry.show(visit)
        except CallRefused as refused:
            visit.error, visit.field_errors, visit.status = refused.sentence, refused.fields, refused.status
            return await self._after(visit, refused)

    async def _after(self, visit: Visit, refused: CallRefused) -> HttpResponse:
        """The page of a refused act, or an error page."""
        if self._entry.page is not None:
            try:
                return await self._entry.page(visit)
            except CallRefused:
                pass  # What the page shows is gone too; the first refusal says more.
        return visit.page("refused.html", code=refused.code)


def routes(console: Console, tables: Sequence[PageTable]) -> list[Route]:
    """The routes of all pages and acts."""
    return [
        Route(entry.path, ConsoleEndpoint(console, entry), methods=[entry.verb])
        for table in tables
        for entry in table.entries
    ]


class StaticFiles(Endpoint):
    """`/console/static/<hash>/<name>`."""

    def __init__(self, pages: Pages) -> None:
        super().__init__((GROUP, "static"))
        self._pages = pages

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The file; 404 if there is none."""
        found = self._pages.static(request.scope["path_params"]["path"])
        if found is None:
            return HttpResponse(404)
        headers = tuple((name.encode(), value.encode()) for name, value in found.headers.items())
        return HttpResponse(200, found.content, headers, found.media_type.encode())


def html_response(text: str, status: int = 200, headers: HeaderList = ()) -> HttpResponse:
    """A page as a response, with the headers of all pages."""
    return HttpResponse(status, text.encode(), (*_HEADERS, *headers), HTML.encode())


def redirect(location: str, headers: HeaderList = ()) -> HttpResponse:
    """303: the browser gets another page."""
    return HttpResponse(
        HTTPStatus.SEE_OTHER, headers=(*_HEADERS, *headers, (b"location", location.encode("ascii", "replace")))
    )


def download(content: bytes, name: str, media_type: str, headers: HeaderList = ()) -> HttpResponse:
    """A file that the browser stores; ``name`` has ASCII letters, digits, dots, hyphens and underscores only."""
    disposition = (b"content-disposition", f'attachment; filename="{name}"'.encode("ascii"))
    return HttpResponse(200, content, (*_HEADERS, *headers, disposition), media_type.encode("ascii"))


def login_needed(request: HttpRequest) -> HttpResponse:
    """Redirect to the login; htmx, which would show the login in a part of the page, loads it as a whole."""
    if b"hx-request" in request.headers:
        return HttpResponse(204, headers=(*_HEADERS, (b"hx-redirect", LOGIN.encode())))
    return redirect(LOGIN)


def refused_page(pages: Pages, request: HttpRequest, refused: PageRefused) -> HttpResponse:
    """The page of a request that was refused before anything was done for it."""
    call_of(request.scope).outcome = "access_denied"
    return html_response(pages.render("outside.html", title="Not possible", sentence=refused.sentence), refused.status)


def query_of(request: HttpRequest) -> dict[str, str]:
    """Last value of each query parameter.

    Raises:
        PageRefused: there are too many, or the text is not UTF-8.
    """
    return dict(_pairs(request.scope["query_string"], MAX_QUERY_FIELDS))


async def form_of(request: HttpRequest) -> list[tuple[str, str]]:
    """Fields of a form, in order.

    Raises:
        PageRefused: the body is no form, or has too many fields.
        BodyTooLarge: it has more than 256 KiB.
    """
    if request.header(b"content-type").partition(";")[0].strip().lower() != _FORM_TYPE:
        raise PageRefused(415, "The request is no form of the console.")
    return _pairs(await read_body(request.receive, MAX_FORM_BYTES), MAX_FORM_FIELDS)


def _pairs(text: bytes, limit: int) -> list[tuple[str, str]]:
    try:
        decoded = text.decode("ascii")
        pairs = parse_qsl(decoded, keep_blank_values=True, errors="strict", max_num_fields=limit)
    except ValueError:
        raise PageRefused(400, "The request has too many fields, or is no valid text.") from None
    # Browsers send line ends in texts as CR LF.
    return [(name, value.replace("\r\n", "\n")) for name, value in pairs]


def _grouped(links: Sequence[Link]) -> dict[str, list[Link]]:
    groups: dict[str, list[Link]] = {}
    for link in links:
        groups.setdefault(link.group, []).append(link)
    return groups
