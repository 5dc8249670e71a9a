"""Links to apps in mails: pages with a button that opens the app.

Mail programs remove links with schemes of apps, such as ``myapp://callback``, so a mail links to ``/open`` instead. A
client may have its other links lead to ``/continue``, whose button leads on to the app. Opening a page changes nothing:
virus scanners and previews open every link, and the code behind the button is still unused.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.routing import Route

from services.gateway.endpoint import Endpoint
from services.gateway.link_pages import LinkPage, PagePolicy
from services.gateway.requests import HttpRequest
from services.gateway.responses import HttpResponse
from shared.mail import OPEN_PATH, PRESS_PATH, PressLink, app_link_of_token, press_link_of_token
from shared.sealing import Sealer

GROUP = "open"
"""Label of these routes in metrics."""
PRESSED_FROM: Final = frozenset({b"same-origin", b"none"})
"""Values of ``sec-fetch-site`` (Fetch Metadata Request Headers, section 2.4) with which the button leads on. A form on
another site only shows the page. The page has no referrer, so browsers send ``Origin: null`` with its form and a check
of ``Origin`` would refuse it."""
_KEPT: Final = "%/:=&?~#+!$,;'@()*[]"
"""Characters of a URL that stay in the header ``location``."""
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?")
"""An origin as a content security policy can name it; IPv6 addresses have no form there."""


def routes(sealer: Sealer) -> list[Route]:
    """``GET /open/{token}``, and ``GET`` and ``POST /continue/{token}``; ``sealer`` unseals tokens."""
    return [
        Route(f"{OPEN_PATH}/{{token}}", OpenPage(sealer), methods=["GET"]),
        Route(f"{PRESS_PATH}/{{token}}", PressPage(sealer), methods=["GET", "POST"]),
    ]


class OpenPage(Endpoint):
    """The page whose button is a link to the app."""

    def __init__(self, sealer: Sealer) -> None:
        super().__init__((GROUP, "page"))
        self._sealer = sealer
        self._page = LinkPage("open")

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The page; 404 if the token is not valid."""
        app_link = app_link_of_token(self._sealer, request.scope["path_params"]["token"])
        if app_link is None:
            return self._page.response(request, "unknown", 404)
        return self._page.response(request, "open", 200, link=app_link.link, product_name=app_link.product_name)


class PressPage(Endpoint):
    """The page whose button posts a form, and is then redirected to the app with the code.

    The link is not on the page, so a scanner that follows every link there does not find it. The request of the button
    has no state: who could forge it has the token from the mail, and the app checks ``state`` and the code verifier.
    """

    def __init__(self, sealer: Sealer) -> None:
        super().__init__((GROUP, "press"))
        self._sealer = sealer
        self._page = LinkPage("continue")

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The page; 303 to the app if its button was pressed; 404 if the token is not valid."""
        press_link = press_link_of_token(self._sealer, request.scope["path_params"]["token"])
        if press_link is None:
            return self._page.response(request, "unknown", 404)
        if request.scope["method"] == "POST" and request.headers.get(b"sec-fetch-site", b"none") in PRESSED_FROM:
            location = quote(press_link.link, safe=_KEPT).encode("ascii")
            return HttpResponse(HTTPStatus.SEE_OTHER, headers=(*self._page.headers, (b"location", location)))
        logo = _origin(press_link.logo_url or "")
        return self._page.response(
            request,
            "press",
            200,
            colours=_colours(press_link),
            policy=PagePolicy(
                # Browsers apply it to the redirect after the form too.
                form_action=f"'self' {_origin(press_link.link) or urlsplit(press_link.link).scheme + ':'}",
                image_source=logo or "'none'",
            ),
            product_name=press_link.product_name,
            logo_url=(press_link.logo_url or "") if logo else "",
        )


def _colours(press_link: PressLink) -> str:
    """The client's colours: the button in both modes, the background in light mode only."""
    return (
        f"button {{ background: {press_link.accent}; color: {press_link.on_accent}; }}\n"
        f"@media (prefers-color-scheme: light) {{ :root {{ --ground: {press_link.background}; }} }}\n"
    )


def _origin(url: str) -> str | None:
    """Origin of a URL, as a source of a content security policy; None if it has another form."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    return origin if _ORIGIN.fullmatch(origin) else None
