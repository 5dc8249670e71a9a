"""Development pages: a start page with a login, the inbox, and the callback that completes a login.

These pages precede the gateway's routes: `/`, `/favicon.ico` and everything under `/dev/`. They exist in the embedded
mode only, and respond only to a literal address or `localhost`. So a foreign page cannot read the inbox through a host
name that resolves to this machine (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from services.embedded.billing_pages import billing_routes
from services.embedded.demo import CLIENTS, DEMO_CLIENT_ID
from services.embedded.docs_pages import DOCS, DocsPages
from services.embedded.inbox_pages import InboxPages
from services.embedded.machine import DRAIN_SECONDS, Machine
from services.embedded.ports import LOOPBACK
from services.gateway.app import drop_trailing_slash
from services.gateway.connections import BodyBudget, ConnectionLimits
from services.gateway.server import Server
from shared.pages import pages as shared_pages
from shared.pages.request_checks import is_rebinding_safe

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from services.embedded.mail_inbox import Inbox

# Without a referrer, because the URL of the callback contains an authorization code.
_HEADERS: Final = shared_pages.page_headers()
_CONNECTIONS: Final = 100
_BODY_BYTES: Final = 8_000_000


class Pages:
    """An ASGI application with the development pages; passes every other path to `app`.

    Args:
        app: application of the gateway.
        inbox: content of the inbox pages.
        base_url: URL of this application as in the browser, without a slash at the end.
        client_id: the demo client; `<base_url>/dev/callback` is one of its redirect URIs.
        version: version in the footer of each page.
        logins: whether `app` is the gateway, so that the start page works; otherwise `/` redirects to the inbox.
        more: makes further routes from the templates.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        inbox: Inbox,
        base_url: str,
        client_id: str,
        version: str,
        logins: bool = True,
        more: Callable[[shared_pages.Pages], Sequence[Route]] = lambda _: (),
    ) -> None:
        self._app = app
        self._base_url = base_url
        self._templates = shared_pages.Pages(
            "services.embedded",
            static_path="/dev/static",
            variables={
                "base_url": base_url,
                "client_id": client_id,
                "clients": CLIENTS,
                "version": version,
                "logins": logins,
                "docs": DOCS.is_dir(),
            },
        )
        self._pages = Starlette(
            routes=[
                Route("/", self._start if logins else _redirect_to_inbox),
                Route("/favicon.ico", self._icon),
                Route("/dev/callback", self._callback),
                Route("/dev/static/{path:path}", self._static_file),
                *InboxPages(inbox, self._templates).routes,
                *more(self._templates),
                *DocsPages(self._templates).routes,
            ]
        )
        self._pages.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        ours = scope["type"] == "http" and (scope["path"] in {"/", "/favicon.ico"} or scope["path"].startswith("/dev/"))
        if not ours:
            await self._app(scope, receive, send)
        elif not is_rebinding_safe(Request(scope).headers.get("host", "")):
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
        return self._page("start.html", paste=self._templates.render("login.sh"))

    async def _callback(self, _: Request) -> Response:
        return self._page("callback.html")

    async def _icon(self, _: Request) -> Response:
        return self._file("nest.svg")

    async def _static_file(self, request: Request) -> Response:
        return self._file(request.path_params["path"])

    def _file(self, path: str) -> Response:
        file = self._templates.static(path)
        if file is None:
            return PlainTextResponse("not found", 404, _HEADERS)
        return Response(file.content, 200, file.headers, file.media_type)

    def _page(self, template: str, **variables: object) -> Response:
        return Response(self._templates.render(template, **variables), 200, _HEADERS, shared_pages.HTML)


async def _redirect_to_inbox(_: Request) -> Response:
    return RedirectResponse("/dev/inbox", headers=_HEADERS)


@asynccontextmanager
async def inbox_server(machine: Machine) -> AsyncIterator[str]:
    """Serve inbox and billing playground on a free loopback port while entered; yield the URL of the inbox."""
    async with AsyncExitStack() as stack:
        billing = await stack.enter_async_context(billing_routes(machine))
        yield await stack.enter_async_context(_serving(machine, billing))


@asynccontextmanager
async def _serving(machine: Machine, billing: Callable[[shared_pages.Pages], Sequence[Route]]) -> AsyncIterator[str]:
    pages = Pages(
        Starlette(),
        inbox=machine.inbox,
        base_url=machine.base_url,
        client_id=DEMO_CLIENT_ID,
        version=metadata.version("nest"),
        logins=False,
        more=billing,
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
        machine.inbox.end_waits()
        await server.stop()
