"""Links to the customer portal, in which people change or end their subscription.

``get_subscription_status`` contains a link to this route. It costs no call to Stripe until it is opened: then billing
creates a session of Stripe's customer portal (https://docs.stripe.com/api/customer_portal/sessions), and the browser is
redirected there.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal

from starlette.routing import Route

from services.gateway.endpoint import Dispatcher, MessageEndpoint, Parsed
from services.gateway.link_pages import LinkPage
from services.gateway.requests import HttpRequest
from services.gateway.responses import HttpResponse
from shared.errors import NotFound, Refusal
from shared.messages import Caller
from shared.messages.billing.subscriptions import CreatePortalSession
from shared.sealing import CannotUnseal, Sealer

GROUP: Final = "portal"
"""Label of this route in metrics."""
PATH: Final = "/portal"
LIFETIME_SECONDS: Final = 60 * 60
"""How long a link works."""
FIELD: Final = "billing_portal_url"
"""Field of a view that has the link."""
State = Literal["unknown", "failed"]
"""The page's texts: for a link that does not work, and for a failure that may pass."""
_RECEIVER: Final = "portal link"
"""Receiver of the tokens; nothing else is sealed for it, so no other ciphertext passes as a token."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9]{1,64}\.[A-Za-z0-9_-]{1,1000}={0,2}")


@dataclass(frozen=True, slots=True)
class PortalLink:
    """What a link says: whose portal it opens, and the client that asked for it, None for a back end."""

    user_id: str
    client_id: str | None


class PortalLinks:
    """Makes and reads links ``<issuer>/portal/<token>``. A token is sealed, so nobody else can read or forge one.

    Args:
        sealer: seals and unseals tokens.
        issuer: the URL under which clients reach this gateway.
        clock: Unix seconds.
    """

    def __init__(self, sealer: Sealer, issuer: str, clock: Callable[[], float] = time.time) -> None:
        self._sealer = sealer
        self._issuer = issuer
        self._clock = clock

    def url(self, user_id: str, client_id: str | None) -> str:
        """A link that works for an hour. Whoever has it can open the portal: never log or store it."""
        content = [user_id, client_id, int(self._clock()) + LIFETIME_SECONDS]
        return f"{self._issuer}{PATH}/{self._sealer.seal(_RECEIVER, json.dumps(content).encode())}"

    def read(self, token: str) -> PortalLink | None:
        """What a token says; None if it is invalid or has expired."""
        if not _TOKEN.fullmatch(token):
            return None
        try:
            user_id, client_id, expires_at = json.loads(self._sealer.unseal(_RECEIVER, token))
        except CannotUnseal:
            return None
        return PortalLink(user_id, client_id) if self._clock() < expires_at else None

    def add(self, message: Any, caller: Caller, response: HttpResponse) -> HttpResponse:
        """Put a link for the message's user into a view, or the ``meta`` of a refusal, that has an empty field for it.

        The others are left as they are.
        """
        if response.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            return response
        body = json.loads(response.body)
        view = body if response.status == HTTPStatus.OK else body.get("meta", {})
        # Billing fills the field if it is set to create a session of Stripe for every answer.
        if view.get(FIELD, "") is not None:
            return response
        view[FIELD] = self.url(message.user_id, caller.client_id)
        response.body = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return response


def routes(dispatcher: Dispatcher, links: PortalLinks) -> list[Route]:
    """``GET /portal/{token}``."""
    return [Route(f"{PATH}/{{token}}", OpenPortal(dispatcher, links), methods=["GET"])]


class OpenPortal(MessageEndpoint):
    """Redirects to a new session of Stripe's customer portal; each request creates one."""

    def __init__(self, dispatcher: Dispatcher, links: PortalLinks) -> None:
        super().__init__(
            (GROUP, "open"),
            dispatcher=dispatcher,
            parse=self._parse_token,
            body_limit=None,
            topic=CreatePortalSession.topic,
        )
        self._links = links
        self._page = LinkPage("portal")

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """303 to Stripe's page, or a page that says what to do; ``HEAD`` creates no session."""
        if request.scope["method"] == "HEAD":
            self._parse_token(request, b"", Caller())
            return HttpResponse(200, headers=self._page.headers)
        response = await super().respond(request)
        if response.status != HTTPStatus.OK:
            return self._failure(request, response)
        location = json.loads(response.body)["url"]
        headers = (*self._page.headers, (b"location", location.encode("ascii")))
        return HttpResponse(HTTPStatus.SEE_OTHER, headers=headers)

    def render_refusal(self, request: HttpRequest, refusal: Refusal) -> HttpResponse:
        """The page, with status and headers of the refusal."""
        return self._failure(request, super().render_refusal(request, refusal))

    def _failure(self, request: HttpRequest, refused: HttpResponse) -> HttpResponse:
        state: State = "unknown" if refused.status == HTTPStatus.NOT_FOUND else "failed"
        response = self._page.response(request, state, refused.status)
        response.headers += refused.headers
        return response

    def _parse_token(self, request: HttpRequest, _body: bytes, _caller: Caller) -> Parsed:
        link = self._links.read(request.scope["path_params"]["token"])
        if link is None:
            raise NotFound
        return CreatePortalSession(user_id=link.user_id, client_id=link.client_id), {}
