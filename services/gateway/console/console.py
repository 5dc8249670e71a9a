"""The console's wiring: its routes below `/console`, open or behind the login of operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.routing import Route

from services.gateway.console import (
    audit,
    branding,
    clients,
    dead_letters,
    deliveries,
    home,
    keys,
    news,
    payments,
    people,
    plans,
    stripe_runs,
    system,
    webhooks,
)
from services.gateway.console.access import Access, OpenAccess
from services.gateway.console.calls import Calls
from services.gateway.console.cookies import SealedCookie
from services.gateway.console.login import Login
from services.gateway.console.pages import Console, PageTable, StaticFiles
from services.gateway.console.pages import routes as page_routes
from services.gateway.console.sessions import OperatorAccess
from services.gateway.endpoint import Dispatcher
from services.gateway.portal import PortalLinks
from shared.pages.pages import Pages
from shared.sealing import Sealer

TABLES: Final[tuple[PageTable, ...]] = (
    home.HOME_PAGES,
    people.PEOPLE,
    clients.CLIENTS,
    branding.BRANDING,
    plans.PLANS,
    news.NEWS,
    webhooks.WEBHOOKS,
    deliveries.DELIVERIES,
    deliveries.SUPPRESSIONS,
    payments.PAYMENTS,
    payments.DISPUTES,
    payments.SUBSCRIPTIONS,
    stripe_runs.RUNS,
    system.SYSTEM,
    dead_letters.DEAD_LETTERS,
    system.PARTITIONS,
    keys.KEYS,
    keys.LIMITS,
    audit.AUDIT,
)
"""All pages; their order is that of the navigation."""
STATIC_PATH: Final = "/console/static"
NOTE_SECONDS: Final = 60


def open_console(dispatcher: Dispatcher, links: PortalLinks, sealer: Sealer) -> ConsoleApp:
    """A console without a login, for this machine."""
    return ConsoleApp(OpenAccess(sealer), Calls(dispatcher, links), dispatcher, sealer, secure=False)


def operators_console(
    dispatcher: Dispatcher,
    links: PortalLinks,
    sealer: Sealer,
    *,
    operators: Mapping[str, str],
    issuer: str,
    test_domains: bool,
) -> ConsoleApp:
    """A console behind the login of operators; the arguments are those of `OperatorAccess` and `Login`."""
    calls = Calls(dispatcher, links)
    access = OperatorAccess(dispatcher, calls, operators=operators, issuer=issuer, sealer=sealer)
    app = ConsoleApp(access, calls, dispatcher, sealer, secure=True)
    app.login = Login(access, dispatcher, calls, app.pages, issuer=issuer, sealer=sealer, test_domains=test_domains)
    return app


class ConsoleApp:
    """All routes of a console. `login` is None if it is open."""

    def __init__(self, access: Access, calls: Calls, dispatcher: Dispatcher, sealer: Sealer, *, secure: bool) -> None:
        self.pages = Pages("services.gateway.console", static_path=STATIC_PATH)
        self.login: Login | None = None
        name = "__Host-nest-console-note" if secure else "nest-console-note"
        self._console = Console(
            access=access,
            calls=calls,
            pages=self.pages,
            note=SealedCookie(sealer, name, seconds=NOTE_SECONDS, same_site="Strict", secure=secure),
            links=[table.link for table in TABLES if table.link is not None],
            trusted_proxies=dispatcher.trusted_proxies,
        )

    def routes(self) -> list[Route]:
        """The routes, all below `/console`."""
        return [
            Route(f"{STATIC_PATH}/{{path:path}}", StaticFiles(self.pages), methods=["GET"]),
            *(() if self.login is None else self.login.routes()),
            *page_routes(self._console, TABLES),
        ]

    async def stop(self) -> None:
        """Cancel what still runs."""
        if self.login is not None:
            await self.login.stop()
