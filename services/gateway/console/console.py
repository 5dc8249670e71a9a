"""The console's wiring: its routes below `/console`, open or behind the login of operators."""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from services.gateway.console import home
from services.gateway.console.access import Access, OpenAccess
from services.gateway.console.calls import Calls
from services.gateway.console.cookies import SealedCookie
from services.gateway.console.pages import Console, PageTable, StaticFiles
from services.gateway.console.pages import routes as page_routes
from services.gateway.endpoint import Dispatcher
from services.gateway.portal import PortalLinks
from shared.pages.pages import Pages
from shared.sealing import Sealer

TABLES: Final[tuple[PageTable, ...]] = (home.HOME_PAGES,)
"""All pages; their order is that of the navigation."""
STATIC_PATH: Final = "/console/static"
NOTE_SECONDS: Final = 60


def routes(dispatcher: Dispatcher, links: PortalLinks, sealer: Sealer) -> list[Route]:
    """The routes of an open console."""
    return _routes(OpenAccess(sealer), dispatcher, links, sealer, secure=False)


def _routes(access: Access, dispatcher: Dispatcher, links: PortalLinks, sealer: Sealer, *, secure: bool) -> list[Route]:
    pages = Pages("services.gateway.console", static_path=STATIC_PATH)
    name = "__Host-nest-console-note" if secure else "nest-console-note"
    console = Console(
        access=access,
        calls=Calls(dispatcher, links),
        pages=pages,
        note=SealedCookie(sealer, name, seconds=NOTE_SECONDS, same_site="Strict", secure=secure),
        links=[table.link for table in TABLES if table.link is not None],
        trusted_proxies=dispatcher.trusted_proxies,
    )
    return [
        Route(f"{STATIC_PATH}/{{path:path}}", StaticFiles(pages), methods=["GET"]),
        *page_routes(console, TABLES),
    ]
