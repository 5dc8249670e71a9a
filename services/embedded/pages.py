"""Development pages: a start page with a login, the inbox, and the callback that completes a login.

These pages precede the gateway's routes: `/`, `/favicon.ico` and everything under `/dev/`. They exist in the embedded
mode only, and respond only to a literal address or `localhost`. So a foreign page cannot read the inbox through a host
name that resolves to this machine (DNS rebinding).
"""

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib import metadata
from importlib.resources import files
from itertools import islice, takewhile
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.embedded.demo import CLIENT_ID, CLIENTS
from services.embedded.machine import DRAIN_SECONDS, Machine
from services.embedded.mail_inbox import Inbox
from services.embedded.ports import LOOPBACK
from services.gateway.app import drop_trailing_slash
from services.gateway.connections import BodyBudget, ConnectionLimits
from services.gateway.server import Server

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    # The URL of the callback contains an authorization code.
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
# A mail may use its own styles and embedded images, but runs no scripts and loads nothing.
_MAIL_HEADERS = _HEADERS | {
    "content-security-policy": (
        "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline';"
        " img-src data:; frame-ancestors 'self'"
    )
}
_SHOWN = 100
"""Number of arrivals on the inbox page."""
_CONNECTIONS = 100
_BODY_BYTES = 8_000_000
_STATIC_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


class Pages:
    """An ASGI application with the development pages; passes every other path to `app`.

    Args:
        app: application of the gateway.
        inbox: content of the inbox pages.
        base_url: URL of this application as in the browser, without a slash at the end.
        client_id: the demo client; `<base_url>/dev/callback` is one of its redirect URIs.
        version: version in the footer of each page.
        logins: whether `app` is the gateway, so that the start page works; otherwise `/` redirects to the inbox.
    """

    def __init__(
        self, app: ASGIApp, *, inbox: Inbox, base_url: str, client_id: str, version: str, logins: bool = True
    ) -> None:
        self._app = app
        self._inbox = inbox
        self._base_url = base_url
        self._templates = Environment(
            loader=PackageLoader("services.embedded"), autoescape=True, undefined=StrictUndefined
        )
        self._templates.globals.update(base_url=base_url, client_id=client_id, clients=CLIENTS, version=version)
        self._static = {file.name: file.read_bytes() for file in (files("services.embedded") / "static").iterdir()}
        self._pages = Starlette(
            routes=[
                Route("/", self._start if logins else _redirect_to_inbox),
                Route("/favicon.ico", self._icon),
                Route("/dev/inbox", self._inbox_page),
                Route("/dev/inbox.json", self._inbox_json),
                Route("/dev/inbox/{arrival_id}", self._mail),
                Route("/dev/callback", self._callback),
                Route("/dev/static/{name}", self._static_file),
            ]
        )
        self._pages.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        ours = scope["type"] == "http" and (scope["path"] in {"/", "/favicon.ico"} or scope["path"].startswith("/dev/"))
        if not ours:
            await self._app(scope, receive, send)
        elif not _is_local(Request(scope).headers.get("host", "")):
            refusal = PlainTextResponse(f"open this page at {self._base_url}/", 421, _HEADERS)
            await refusal(scope, receive, send)
        else:
            # As on the gateway's routes. A redirect would repeat the code in the URL without the headers of a page.
            drop_trailing_slash(scope)
            await self._pages(scope, receive, send)

    async def _start(self, request: Request) -> Response:
        # The browser stores the verifier of a login for one origin, and the link in the mail leads to this one.
        if request.headers["host"] != urlsplit(self._base_url).netloc:
            return RedirectResponse(f"{self._base_url}/", headers=_HEADERS)
        return self._page("start.html")

    async def _callback(self, _: Request) -> Response:
        return self._page("callback.html")

    async def _inbox_page(self, request: Request) -> Response:
        """Show the newest arrivals; with `?after=<id>` only those after that one."""
        after = request.query_params.get("after")
        newer = takewhile(lambda arrival: arrival.id != after, self._inbox.arrivals())
        return self._page("inbox.html", arrivals=list(islice(newer, _SHOWN)))

    async def _inbox_json(self, request: Request) -> Response:
        arrivals = self._inbox.arrivals(request.query_params.get("to"))
        return JSONResponse([asdict(arrival) for arrival in arrivals], headers=_HEADERS)

    async def _mail(self, request: Request) -> Response:
        """Show the HTML of a mail in a frame of the inbox page; its links open in a new tab."""
        arrival = self._inbox.find(request.path_params["arrival_id"])
        if arrival is None or not arrival.html:
            return PlainTextResponse("mail not found", 404, _HEADERS)
        return Response(f'<base target="_blank">{arrival.html}', 200, _MAIL_HEADERS, "text/html; charset=utf-8")

    async def _icon(self, _: Request) -> Response:
        return self._file("nest.svg")

    async def _static_file(self, request: Request) -> Response:
        name = request.path_params["name"]
        return self._file(name) if name in self._static else PlainTextResponse("not found", 404, _HEADERS)

    def _file(self, name: str) -> Response:
        return Response(self._static[name], 200, _HEADERS, _STATIC_TYPES[name.rpartition(".")[2]])

    def _page(self, template: str, **variables: object) -> Response:
        text = self._templates.get_template(template).render(variables)
        return Response(text, 200, _HEADERS, "text/html; charset=utf-8")


async def _redirect_to_inbox(_: Request) -> Response:
    return RedirectResponse("/dev/inbox", headers=_HEADERS)


def _is_local(host: str) -> bool:
    """Whether a Host header is a literal address or `localhost`."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@asynccontextmanager
async def inbox_server(machine: Machine) -> AsyncIterator[str]:
    """Serve the inbox on a free loopback port while the context is entered; yield its URL."""
    pages = Pages(
        Starlette(),
        inbox=machine.inbox,
        base_url=machine.base_url,
        client_id=CLIENT_ID,
        version=metadata.version("nest"),
        logins=False,
    )
    server = Server(
        pages,
        host=LOOPBACK,
        port=0,
        connections=ConnectionLimits(_CONNECTIONS, _CONNECTIONS, ()),
        bodies=BodyBudget(_BODY_BYTES),
        drain_seconds=DRAIN_SECONDS,
    )
    await server.start()
    try:
        yield f"http://{LOOPBACK}:{server.port}/dev/inbox"
    finally:
        await server.stop()
