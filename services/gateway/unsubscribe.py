"""Unsubscribe link of mails, without a login (RFC 8058).

``GET`` changes nothing, because virus scanners and previews open every link: it shows a page with a button. Mail
programs with an unsubscribe button of their own ``POST`` to the same link.
"""

from __future__ import annotations

from typing import Final, Literal

from starlette.routing import Route

from services.gateway.endpoint import Dispatcher, Endpoint, MessageEndpoint, Parsed, by_field
from services.gateway.link_pages import LinkPage
from services.gateway.requests import HttpRequest
from services.gateway.responses import HttpResponse
from shared.errors import NotFound, Refusal, Unavailable
from shared.mail import UNSUBSCRIBE_PATH, user_of_token
from shared.messages import Caller
from shared.messages.mailer.consents import RecordMarketingConsent
from shared.sealing import Sealer

GROUP: Final = "unsubscribe"
"""Label of these routes in metrics."""
SOURCE: Final = "unsubscribe-link"
MAX_FORM_BYTES: Final = 4096
"""The form has one field, and its content is not used."""
State = Literal["confirm", "done", "unknown", "failed"]
"""The page's texts: before and after the button, for an invalid link, and for a failure."""


def routes(dispatcher: Dispatcher, sealer: Sealer) -> list[Route]:
    """``GET`` and ``POST /unsubscribe/{token}``.

    Args:
        dispatcher: sends messages to the mailer.
        sealer: unseals tokens.
    """
    page, path = LinkPage("unsubscribe", form_action="'self'"), f"{UNSUBSCRIBE_PATH}/{{token}}"
    return [
        Route(path, ShowPage(page, sealer), methods=["GET"]),
        Route(path, Unsubscribe(dispatcher, page, sealer), methods=["POST"]),
    ]


class ShowPage(Endpoint):
    """The page with the button."""

    def __init__(self, page: LinkPage, sealer: Sealer) -> None:
        super().__init__((GROUP, "page"))
        self._page = page
        self._sealer = sealer

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The page; 404 if the token is not valid."""
        valid = user_of_token(self._sealer, request.scope["path_params"]["token"]) is not None
        return self._page.response(request, "confirm", 200) if valid else self._page.response(request, "unknown", 404)


class Unsubscribe(MessageEndpoint):
    """The button: sets the marketing consent of the token's user to ``none``."""

    def __init__(self, dispatcher: Dispatcher, page: LinkPage, sealer: Sealer) -> None:
        super().__init__(
            (GROUP, "unsubscribe"),
            dispatcher=dispatcher,
            parse=self._parse_token,
            ordering_key=by_field("user_id"),
            body_limit=MAX_FORM_BYTES,
            topic=RecordMarketingConsent.topic,
        )
        self._page = page
        self._sealer = sealer

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Dispatch the command and respond with the page.

        Raises:
            Unavailable: the mailer refused the command.
        """
        # Without headers, so that no header of a mail program, such as an idempotency key, prevents unsubscribing.
        response = await super().respond(HttpRequest(request.scope, request.receive, {}))
        if response.status >= 300:  # noqa: PLR2004 -- neither 200 nor 204
            raise Unavailable
        return self._page.response(request, "done", 200)

    def render_refusal(self, request: HttpRequest, refusal: Refusal) -> HttpResponse:
        """The page, with status and headers of the refusal."""
        refused = super().render_refusal(request, refusal)
        state: State = "unknown" if isinstance(refusal, NotFound) else "failed"
        response = self._page.response(request, state, refused.status)
        response.headers += refused.headers
        return response

    def _parse_token(self, request: HttpRequest, _body: bytes, _caller: Caller) -> Parsed:
        user_id = user_of_token(self._sealer, request.scope["path_params"]["token"])
        if user_id is None:
            raise NotFound
        return RecordMarketingConsent(key=user_id, user_id=user_id, level="none", source=SOURCE), {}
