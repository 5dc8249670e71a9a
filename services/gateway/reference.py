"""Reference: the documents of API and events for programs, and pages for people.

| path | content |
|---|---|
| ``/openapi.json`` | methods and routes, OpenAPI 3.1 |
| ``/asyncapi.json`` | topics and messages on Kafka, AsyncAPI 3 |
| ``/reference`` | the newest version as a page, with every error |
| ``/reference/<date>`` | an older version as a page |
| ``/reference/events`` | topics and messages as a page |
| ``/reference/static/…`` | style sheet and scripts of the pages |

``make reference`` generates both documents. A page is rendered from them at its first request, in another thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files

from markupsafe import Markup, escape
from starlette.routing import Route

from services.gateway.asyncapi_view import AsyncApiView
from services.gateway.cached_content import GROUP, HTML, CachedContent
from services.gateway.endpoint import Endpoint
from services.gateway.error_messages import MESSAGES
from services.gateway.openapi_view import NEWEST, OpenApiView
from services.gateway.requests import HttpRequest
from services.gateway.responses import HeaderList, HttpResponse
from services.gateway.versions import DOCS_PATH, VERSIONS, error_anchor
from shared.errors import NotFound
from shared.pages.pages import Pages, page_headers

EVENTS_PATH = f"{DOCS_PATH}/events"
STATIC_PATH = f"{DOCS_PATH}/static"
_CODE = re.compile(r"`([^`]+)`")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")


def routes(issuer: str) -> list[Route]:
    """The routes of the reference.

    Args:
        issuer: the URL under which clients reach this gateway, for the examples.
    """
    pages = Pages(
        "services.gateway", static_path=STATIC_PATH, variables={"versions": version_paths(), "newest": NEWEST}
    )
    pages.environment.filters |= {"markdown": markdown, "inline": inline, "slug": slug, "error_anchor": error_anchor}

    @cache
    def document(name: str) -> bytes:
        # Without the indentation of the file, which is for the review of its changes: a tenth less for clients.
        content = json.loads((files("services.gateway") / name).read_bytes())
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()

    def version_page(date: str) -> bytes:
        view = OpenApiView(json.loads(document("openapi.json")), issuer, date)
        return pages.render("reference.html", view=view, here=date).encode()

    def events_page() -> bytes:
        view = AsyncApiView(json.loads(document("asyncapi.json")))
        return pages.render("reference_events.html", view=view, here="events", codes=MESSAGES).encode()

    headers = _headers()
    return [
        CachedContent("openapi", partial(document, "openapi.json"), slow=True).route("/openapi.json"),
        CachedContent("asyncapi", partial(document, "asyncapi.json"), slow=True).route("/asyncapi.json"),
        _page("reference", partial(version_page, NEWEST), headers).route(DOCS_PATH),
        _page("events", events_page, headers).route(EVENTS_PATH),
        Route(f"{DOCS_PATH}/{{version}}", OlderVersions(version_page, headers), methods=["GET"]),
        Route(f"{STATIC_PATH}/{{path:path}}", StaticFiles(pages), methods=["GET"]),
    ]


def version_paths() -> dict[str, str]:
    """The page of each version by its date, the newest first."""
    dates = [version.date for version in reversed(VERSIONS)]
    return {date: DOCS_PATH if date == NEWEST else f"{DOCS_PATH}/{date}" for date in dates}


def _headers() -> HeaderList:
    # The page's own cache-control and the middleware's other headers stay.
    own = page_headers(form_action="'none'")
    return tuple((name.encode(), value.encode()) for name, value in own.items() if name != "cache-control")


def _page(name: str, render: Callable[[], bytes], headers: HeaderList) -> CachedContent:
    return CachedContent(name, cache(render), HTML, headers, slow=True)


class OlderVersions(Endpoint):
    """The pages of the versions before the newest one, by their date in the path."""

    def __init__(self, render: Callable[[str], bytes], headers: HeaderList) -> None:
        super().__init__((GROUP, "reference"))
        older = [version.date for version in VERSIONS if version.date != NEWEST]
        self._pages = {date: _page("reference", partial(render, date), headers) for date in older}

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The page.

        Raises:
            NotFound: there is no older version of this date.
        """
        page = self._pages.get(request.scope["path_params"]["version"])
        if page is None:
            raise NotFound
        return await page.respond(request)


class StaticFiles(Endpoint):
    """Style sheet, icon and scripts of the pages."""

    def __init__(self, pages: Pages) -> None:
        super().__init__((GROUP, "static"))
        self._pages = pages

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The file.

        Raises:
            NotFound: there is none of this name.
        """
        found = self._pages.static(request.scope["path_params"]["path"])
        if found is None:
            raise NotFound
        headers = tuple((name.encode(), value.encode()) for name, value in found.headers.items())
        return HttpResponse(200, found.content, headers, found.media_type.encode())


def markdown(text: str) -> Markup:
    """Render the subset of Markdown that descriptions use as HTML: paragraphs, lists, bold text and code."""
    return Markup("\n").join(_block(each) for each in text.strip().split("\n\n") if each)


def _block(text: str) -> Markup:
    lines = text.split("\n")
    if all(line.startswith("- ") for line in lines):
        items = Markup("").join(Markup("<li>{}</li>").format(inline(line[2:])) for line in lines)
        return Markup("<ul>{}</ul>").format(items)
    return Markup("<p>{}</p>").format(inline(text))


def inline(text: str) -> Markup:
    """Render code in backticks and bold text."""
    code = _CODE.sub(r"<code>\1</code>", str(escape(text)))
    return Markup(_BOLD.sub(r"<strong>\1</strong>", code))  # noqa: S704 -- escaped above


def slug(name: str) -> str:
    """Anchor of a group: ``Phone login`` is ``phone-login``."""
    return name.lower().replace(" ", "-")
