"""Start page of the console: search for people, what needs attention, and links to all pages."""

from __future__ import annotations

from typing import Final

from services.gateway.console.pages import HOME, Link, PageTable, Visit
from services.gateway.responses import HttpResponse

HOME_PAGES: Final = PageTable(Link("", "Start", HOME))


@HOME_PAGES.page(HOME)
async def home(visit: Visit) -> HttpResponse:
    """The start page. It calls no method, so it opens while services are away."""
    return visit.page("home.html")
