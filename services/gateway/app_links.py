"""Links to apps in mails: a page with a button that opens the app.

Mail programs remove links with schemes of apps, such as ``myapp://callback``, so a mail links to this page instead.
Opening it changes nothing: virus scanners and previews open every link, and the code in the button's link is still
unused.
"""

from __future__ import annotations

from starlette.routing import Route

from services.gateway.endpoint import Endpoint
from services.gateway.link_pages import LinkPage
from services.gateway.requests import HttpRequest
from services.gateway.responses import HttpResponse
from shared.mail import OPEN_PATH, app_link_of_token
from shared.sealing import Sealer

GROUP = "open"
"""Label of this route in metrics."""


def routes(sealer: Sealer) -> list[Route]:
    """``GET /open/{token}``; ``sealer`` unseals tokens."""
    return [Route(f"{OPEN_PATH}/{{token}}", OpenPage(sealer), methods=["GET"])]


class OpenPage(Endpoint):
    """The page with the button."""

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
