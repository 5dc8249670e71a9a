"""Pages behind the links that accounts with passwords get by mail: a new password, and proof of an address.

``GET`` changes nothing, because virus scanners and previews open every link: it shows a form, whose button redeems the
link. The pages work without scripts and send no referrer, since their addresses contain the code.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import parse_qs

from starlette.routing import Route

from services.gateway.endpoint import Dispatcher, Endpoint, MessageEndpoint, Parsed
from services.gateway.link_pages import LinkPage
from services.gateway.requests import HttpRequest
from services.gateway.responses import HttpResponse
from shared.errors import NotFound, Refusal
from shared.mail import CONFIRM_PATH, RESET_PATH
from shared.messages import Caller, Command, Sealed
from shared.messages.auth.account_links import ResetPassword, VerifyAddress
from shared.messages.auth.accounts import min_password_length
from shared.sealing import Sealer

GROUP: Final = "account links"
"""Label of these routes in metrics."""
MAX_FORM_BYTES: Final = 4096
"""The form has one field: 255 characters of a password, percent-encoded."""
PASSWORD_FIELD: Final = "password"  # noqa: S105 -- the name of a field
State = Literal["form", "refused", "done", "unknown", "failed"]
"""The page's texts: before the button, for a password that is not allowed, after the button, for an invalid link, and
for a failure. The page that proves an address has no ``refused``."""
_CODE: Final = re.compile(r"[A-Za-z0-9_]{1,64}\.[0-9a-f]{64}")


def routes(dispatcher: Dispatcher, *, old_clients: bool) -> list[Route]:
    """``GET`` and ``POST /reset/{token}`` and ``/confirm/{token}``.

    Args:
        dispatcher: sends messages to auth.
        old_clients: whether passwords of 6 characters are allowed.
    """
    min_length = min_password_length(old_clients=old_clients)
    found: list[Route] = []
    for path, name, message in ((RESET_PATH, "reset", ResetPassword), (CONFIRM_PATH, "confirm", VerifyAddress)):
        page = AccountPage(name, min_length)
        found += [
            Route(f"{path}/{{token}}", ShowPage(page), methods=["GET"]),
            Route(f"{path}/{{token}}", RedeemLink(dispatcher, page, message), methods=["POST"]),
        ]
    return found


class AccountPage:
    """One of the pages; ``min_length`` is that of a new password."""

    def __init__(self, name: str, min_length: int) -> None:
        self.name = name
        self._min_length = min_length
        self._page = LinkPage(name, form_action="'self'")

    def response(self, request: HttpRequest, state: State, status: int) -> HttpResponse:
        """The page in a state."""
        return self._page.response(request, state, status, min_length=str(self._min_length))


class ShowPage(Endpoint):
    """The page with the form."""

    def __init__(self, page: AccountPage) -> None:
        super().__init__((GROUP, page.name))
        self._page = page

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The page; 404 if the code is malformed. Whether it is valid is not looked up."""
        well_formed = _CODE.fullmatch(request.scope["path_params"]["token"]) is not None
        return (
            self._page.response(request, "form", 200) if well_formed else self._page.response(request, "unknown", 404)
        )


class RedeemLink(MessageEndpoint):
    """The button: redeems the link."""

    def __init__(self, dispatcher: Dispatcher, page: AccountPage, message: type[ResetPassword | VerifyAddress]) -> None:
        super().__init__(
            (GROUP, f"{page.name} redeemed"),
            dispatcher=dispatcher,
            parse=self._parse_form,
            ordering_key=by_link,
            body_limit=MAX_FORM_BYTES,
            topic=message.topic,
        )
        self._page = page
        self._message = message

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Dispatch the command and respond with the page."""
        # Without headers, so that no header of a browser's extension, such as an idempotency key, has an effect.
        response = await super().respond(HttpRequest(request.scope, request.receive, {}))
        if response.status < HTTPStatus.MULTIPLE_CHOICES:
            return self._page.response(request, "done", 200)
        return self._refused(request, response, json.loads(response.body)["code"])

    def render_refusal(self, request: HttpRequest, refusal: Refusal) -> HttpResponse:
        """The page, with status and headers of the refusal."""
        return self._refused(request, super().render_refusal(request, refusal), refusal.code)

    def _refused(self, request: HttpRequest, response: HttpResponse, code: str) -> HttpResponse:
        states: dict[str, State] = {"validation_failed": "refused", "link_not_valid": "unknown", "not_found": "unknown"}
        state = states.get(code, "failed")
        page = self._page.response(request, state, HTTPStatus.NOT_FOUND if state == "unknown" else response.status)
        page.headers += tuple(header for header in response.headers if header[0] == b"retry-after")
        return page

    def _parse_form(self, request: HttpRequest, body: bytes, _caller: Caller) -> Parsed:
        token = request.scope["path_params"]["token"]
        if not _CODE.fullmatch(token):
            raise NotFound
        command: Command
        if self._message is VerifyAddress:
            command = VerifyAddress(token=Sealed.of(token))
        else:
            # Browsers send a form in the page's encoding, UTF-8.
            typed = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True).get(PASSWORD_FIELD, [""])[0]
            command = ResetPassword(token=Sealed.of(token), password=Sealed.of(typed))
        return command, {}


def by_link(message: ResetPassword | VerifyAddress, sealer: Sealer) -> str:
    """Order all uses of one link."""
    return sealer.fingerprint(b"account link", message.token.plain.encode())
