"""Login of operators: a magic link to an address of `NEST_OPERATORS`, for the browser that asked for it.

The console is a client of Nest like any other: it calls `send_magic_link` and `authenticate_user`, with their rate
limits, and keeps the PKCE verifier in a sealed cookie. The page is the same for every address, and so is its time,
because the mail is requested after the response. Opening the link shows a button, whose press redeems it: the
session's cookie is `SameSite=Strict`, which browsers do not send after a navigation from a mail.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from starlette.routing import Route

from services.gateway.console.access import CALLER_PREFIX, CSRF_FIELD, FormTokens, PageRefused
from services.gateway.console.calls import CallRefused, Calls
from services.gateway.console.cookies import SealedCookie
from services.gateway.console.pages import (
    GROUP,
    HOME,
    LOGIN,
    form_of,
    html_response,
    query_of,
    redirect,
    refused_page,
)
from services.gateway.console.sessions import CLIENT_ID, OperatorAccess
from services.gateway.endpoint import Dispatcher, Endpoint
from services.gateway.requests import HttpRequest
from services.gateway.responses import HttpResponse
from shared.email_addresses import normal_email
from shared.messages import Caller
from shared.messages.auth.errors import InvalidEmail
from shared.pages.pages import Pages
from shared.sealing import Sealer
from shared.telemetry import log

CALLBACK: Final = "/console/callback"
LOGOUT: Final = "/console/logout"
GATEWAY_NAME: Final = "gateway"
"""Name in the audit of the registration of the console's client."""
LOGIN_SECONDS: Final = 60 * 60
"""How long a browser remembers that it asked for a link."""
MAX_REQUESTED_MAILS: Final = 20
"""Mails that are being requested at the same time; further ones are dropped, with a warning."""
MAX_CODE_CHARACTERS: Final = 256
_LOGIN_COOKIE: Final = "__Host-nest-console-login"
_UNREGISTERED: Final = frozenset({"client_not_found", "invalid_redirect_uri"})


class Login:
    """The pages of the login.

    Args:
        access: begins and ends sessions.
        dispatcher: identifies networks.
        calls: calls methods.
        pages: templates.
        issuer: URL of the gateway, the start of links.
        sealer: seals the cookie.
        test_domains: whether `.test` addresses are valid.
    """

    def __init__(
        self,
        access: OperatorAccess,
        dispatcher: Dispatcher,
        calls: Calls,
        pages: Pages,
        *,
        issuer: str,
        sealer: Sealer,
        test_domains: bool,
    ) -> None:
        self._access = access
        self._dispatcher = dispatcher
        self._calls = calls
        self._pages = pages
        self._redirect_uri = issuer + CALLBACK
        self._test_domains = test_domains
        self._tokens = FormTokens(sealer)
        self._cookie = SealedCookie(sealer, _LOGIN_COOKIE, seconds=LOGIN_SECONDS, same_site="Lax", secure=True)
        self._requested: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Route]:
        """`GET` and `POST` of the login and of the link's page, and `POST` of the log out."""
        return [
            self._route(LOGIN, "GET", self._ask),
            self._route(LOGIN, "POST", self._send),
            self._route(CALLBACK, "GET", self._opened),
            self._route(CALLBACK, "POST", self._redeem),
            self._route(LOGOUT, "POST", self._log_out),
        ]

    async def stop(self) -> None:
        """Cancel the requests for mails that have not been sent."""
        for task in self._requested:
            task.cancel()
        await asyncio.gather(*self._requested, return_exceptions=True)

    async def _ask(self, request: HttpRequest) -> HttpResponse:
        """The form. A link that was mailed before still works, since the browser keeps what it remembers."""
        return self._form(request)

    async def _send(self, request: HttpRequest) -> HttpResponse:
        """Request a mail if the address is an operator's; the response is the same for all addresses."""
        form = dict(await form_of(request))
        self._check_form(form, request)
        typed = form.get("email", "")[:512]
        try:
            address = normal_email(typed, test_domains=self._test_domains)
        except InvalidEmail:
            return self._form(request, error="This is no e-mail address.", status=422, typed=typed)
        login = _new_login(address)
        if address in self._access.operators:
            self._request_mail(request, login)
        return self._sent(login)

    async def _opened(self, request: HttpRequest) -> HttpResponse:
        """The page behind the link, with the button that redeems it; nothing is redeemed yet."""
        query, login = query_of(request), self._cookie.read(request)
        code = query.get("code", "")
        if login is None or not _equal(query.get("state", ""), login["state"]) or len(code) > MAX_CODE_CHARACTERS:
            return self._form(
                request,
                error="Open the link in the browser in which you asked for it, within an hour, or ask for another one.",
                status=400,
            )
        return self._page("press.html", login, code=code, address=login["address"])

    async def _redeem(self, request: HttpRequest) -> HttpResponse:
        """Redeem the code of the link, or the digits in the mail, and begin a session."""
        form, login = dict(await form_of(request)), self._cookie.read(request)
        self._check_form(form, request)
        if login is None or not login["address"]:
            raise PageRefused(403, "Ask for a link first.")
        code = form.get("code", "")[:MAX_CODE_CHARACTERS]
        fields = {
            "client_id": CLIENT_ID,
            "grant_type": "authorization_code",
            "redirect_uri": self._redirect_uri,
            "code": code,
            "code_verifier": login["verifier"],
        }
        try:
            view = await self._calls.call(request, self._dispatcher.anonymous(request), "authenticate_user", fields)
            allowed = await self._owns(request, view["user_id"], login["address"])
        except CallRefused as refused:
            return self._sent(login, error=_login_error(refused.status), status=refused.status)
        if not allowed:
            return self._form(request, error=_login_error(HTTPStatus.FORBIDDEN), status=403)
        return redirect(HOME, (self._access.begin(login["address"], view), self._cookie.removal))

    async def _log_out(self, request: HttpRequest) -> HttpResponse:
        """End the session."""
        form = dict(await form_of(request))
        self._access.check_form(form.get(CSRF_FIELD, ""), request)
        try:
            removal = await self._access.end(request)
        except CallRefused as refused:
            raise PageRefused(refused.status, "The session cannot be ended just now. Try again soon.") from None
        return redirect(LOGIN, (removal,))

    async def _owns(self, request: HttpRequest, user_id: str, address: str) -> bool:
        """Whether an address is an operator's and belongs to a user, who has proved it."""
        if address not in self._access.operators:
            return False
        caller = Caller(kind="user", user_id=user_id, client_id=CLIENT_ID)
        user = await self._calls.call(request, caller, "get_user", {"user_id": user_id})
        return any(
            each["identifier_value"] == address and each["verified_at"] and not each["removed_at"]
            for each in user["identifiers"]
        )

    def _request_mail(self, request: HttpRequest, login: dict[str, Any]) -> None:
        if len(self._requested) >= MAX_REQUESTED_MAILS:
            log.warning("console login mail not requested", code="too_many_requests")
            return
        task = asyncio.create_task(self._mail(request, login))
        self._requested.add(task)
        task.add_done_callback(self._requested.discard)

    async def _mail(self, request: HttpRequest, login: dict[str, Any]) -> None:
        """Request the mail; register the client, or its new redirect URI, if it is not."""
        challenge = hashlib.sha256(login["verifier"].encode()).digest()
        fields = {
            "client_id": CLIENT_ID,
            "redirect_uri": self._redirect_uri,
            "state": login["state"],
            "code_challenge_method": "S256",
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "identifier_type": "email",
            "identifier_value": login["address"],
        }
        anonymous = self._dispatcher.anonymous(request)
        try:
            try:
                await self._calls.call(request, anonymous, "send_magic_link", fields)
            except CallRefused as refused:
                if refused.code not in _UNREGISTERED:
                    raise
                await self._register(request, new=refused.code == "client_not_found")
                await self._calls.call(request, anonymous, "send_magic_link", fields)
        except CallRefused as refused:
            log.warning("console login mail not requested", code=refused.code)

    async def _register(self, request: HttpRequest, *, new: bool) -> None:
        caller = Caller(kind="internal", key_name=CALLER_PREFIX + GATEWAY_NAME)
        fields: dict[str, Any] = {"id": CLIENT_ID, "redirect_uris": [self._redirect_uri]}
        if new:
            await self._calls.call(request, caller, "create_client", {**fields, "name": "Nest console"})
        else:
            await self._calls.call(request, caller, "update_client", fields)

    def _check_form(self, form: dict[str, str], request: HttpRequest) -> None:
        login = self._cookie.read(request)
        self._tokens.check(form.get(CSRF_FIELD, ""), "" if login is None else login["id"])

    def _form(self, request: HttpRequest, *, error: str = "", status: int = 200, typed: str = "") -> HttpResponse:
        login = self._cookie.read(request) or _new_login("")
        return self._page("login.html", login, error=error, status=status, typed=typed)

    def _sent(self, login: dict[str, Any], *, error: str = "", status: int = 200) -> HttpResponse:
        return self._page("sent.html", login, error=error, status=status, address=login["address"])

    def _page(
        self, template: str, login: dict[str, Any], *, error: str = "", status: int = 200, **variables: str
    ) -> HttpResponse:
        csrf = self._tokens.token(login["id"])
        text = self._pages.render(template, title="Log in to the console", csrf=csrf, error=error, **variables)
        return html_response(text, status, (self._cookie.header(login),))

    def _route(self, path: str, verb: str, answer: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> Route:
        return Route(path, LoginEndpoint(self._access, self._pages, path, answer), methods=[verb])


class LoginEndpoint(Endpoint):
    """A page of the login, with the checks of all pages of the console."""

    def __init__(
        self,
        access: OperatorAccess,
        pages: Pages,
        path: str,
        answer: Callable[[HttpRequest], Awaitable[HttpResponse]],
    ) -> None:
        super().__init__((GROUP, path.rpartition("/")[2]))
        self._access = access
        self._pages = pages
        self._answer = answer

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Answer one request."""
        try:
            self._access.check(request)
            return await self._answer(request)
        except PageRefused as refused:
            return refused_page(self._pages, request, refused)


def _new_login(address: str) -> dict[str, Any]:
    """What the browser remembers; an address is empty until one is typed."""
    return {
        "id": secrets.token_hex(16),
        "address": address,
        "state": secrets.token_hex(16),
        "verifier": secrets.token_urlsafe(48),
    }


def _equal(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _login_error(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "There were too many attempts. Try again later."
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "The login cannot be checked just now. Try again soon."
    return "This link or code is not valid, or not any more. Ask for another one."
