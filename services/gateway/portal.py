"""Links to Stripe's pages: the customer portal, in which people change or end their subscription, and their invoices.

A link costs no call to Stripe until it is opened. Then billing creates a session of Stripe's customer portal
(https://docs.stripe.com/api/customer_portal/sessions) or reads the invoice, and the browser is redirected there.
Stripe's own links are neither stored nor part of a response: whoever has one sees the person's invoices.
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
from shared.messages import Caller, Query
from shared.messages.billing.invoices import GetInvoiceLink
from shared.messages.billing.links import LINK, PORTAL, invoice_of
from shared.messages.billing.subscriptions import CreatePortalSession
from shared.sealing import CannotUnseal, Sealer

GROUP: Final = "portal"
"""Label of these routes in metrics."""
PATH: Final = "/portal"
INVOICE_PATH: Final = "/invoice"
LIFETIME_SECONDS: Final = 60 * 60
"""How long a link works."""
FIELD: Final = "billing_portal_url"
"""Field of a view that has the link."""
State = Literal["unknown", "throttled", "failed"]
"""The page's texts: for a link that does not work, for one that was opened too often, and for another failure that may
pass."""
_STATES: Final[dict[int, State]] = {HTTPStatus.NOT_FOUND: "unknown", HTTPStatus.TOO_MANY_REQUESTS: "throttled"}
_RECEIVER: Final = "portal link"
"""Receiver of the tokens; nothing else is sealed for it, so no other ciphertext passes as a token."""
_INVOICE_RECEIVER: Final = "invoice link"
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
        content = self._unsealed(_RECEIVER, token)
        return None if content is None else PortalLink(*content)

    def invoice_url(self, query: GetInvoiceLink) -> str:
        """A link to an invoice, ``<issuer>/invoice/<token>``, that works for an hour; as secret as ``url``."""
        content = [query.model_dump(exclude={"key"}), int(self._clock()) + LIFETIME_SECONDS]
        return f"{self._issuer}{INVOICE_PATH}/{self._sealer.seal(_INVOICE_RECEIVER, json.dumps(content).encode())}"

    def portal_query(self, token: str) -> CreatePortalSession | None:
        """The query that opens a link to the portal; None if the token is invalid or has expired."""
        link = self.read(token)
        return None if link is None else CreatePortalSession(user_id=link.user_id, client_id=link.client_id)

    def invoice_query(self, token: str) -> GetInvoiceLink | None:
        """The query that opens a link to an invoice; None if the token is invalid or has expired."""
        content = self._unsealed(_INVOICE_RECEIVER, token)
        return None if content is None else GetInvoiceLink.model_validate(*content)

    def _unsealed(self, receiver: str, token: str) -> list[Any] | None:
        if not _TOKEN.fullmatch(token):
            return None
        try:
            *content, expires_at = json.loads(self._sealer.unseal(receiver, token))
        except CannotUnseal:
            return None
        return content if self._clock() < expires_at else None

    def complete(self, message: Any, caller: Caller, response: HttpResponse) -> HttpResponse:
        """Replace the placeholders in a view (``shared.messages.billing.links``) with links for the message's user."""
        if response.status != HTTPStatus.OK or LINK.encode() not in response.body:
            return response

        def completed(value: Any) -> Any:
            if isinstance(value, dict):
                return {
                    name: self._link(each, message.user_id, caller.client_id)
                    if name.endswith("_url")
                    else completed(each)
                    for name, each in value.items()
                }
            return [completed(each) for each in value] if isinstance(value, list) else value

        body = completed(json.loads(response.body))
        response.body = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return response

    def _link(self, value: Any, user_id: str, client_id: str | None) -> Any:
        """The link for a placeholder; any other value unchanged."""
        if value == PORTAL:
            return self.url(user_id, client_id)
        fields = invoice_of(value) if isinstance(value, str) else None
        if fields is None:
            return value
        return self.invoice_url(GetInvoiceLink.model_validate({"user_id": user_id, "client_id": client_id, **fields}))

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
    """``GET /portal/{token}`` and ``GET /invoice/{token}``."""
    return [
        Route(f"{PATH}/{{token}}", OpenLink("open", dispatcher, links.portal_query), methods=["GET"]),
        Route(f"{INVOICE_PATH}/{{token}}", OpenLink("open_invoice", dispatcher, links.invoice_query), methods=["GET"]),
    ]


class OpenLink(MessageEndpoint):
    """Redirects to a page of Stripe that the reply to a link's query names; each request sends the query.

    ``query_of`` reads a token.
    """

    def __init__(self, name: str, dispatcher: Dispatcher, query_of: Callable[[str], Query | None]) -> None:
        super().__init__(
            (GROUP, name),
            dispatcher=dispatcher,
            parse=self._parse_token,
            body_limit=None,
            topic=CreatePortalSession.topic,
        )
        self._query_of = query_of
        self._page = LinkPage("portal")

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """303 to Stripe's page, or a page that says what to do; ``HEAD`` sends no query."""
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
        response = self._page.response(request, _STATES.get(refused.status, "failed"), refused.status)
        response.headers += refused.headers
        return response

    def _parse_token(self, request: HttpRequest, _body: bytes, _caller: Caller) -> Parsed:
        query = self._query_of(request.scope["path_params"]["token"])
        if query is None:
            raise NotFound
        return query, {}
