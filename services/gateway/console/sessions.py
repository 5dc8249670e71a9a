"""Sessions of operators: a sealed cookie around the tokens of a login to Nest, as the client of the console.

The cookie holds an access token and a refresh token, so a session is one of Nest's sessions: it is in `list_sessions`
and ends with `revoke_sessions`, with the erasure of the person and with the client. Gateways learn of it within a
second. It also ends when the address is removed from `NEST_OPERATORS`, after half an hour without a page, and after
twelve hours.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from services.gateway.authentication import Authenticator
from services.gateway.console.access import Access, FormTokens, Operator, PageRefused
from services.gateway.console.calls import CallRefused, Calls
from services.gateway.console.cookies import SealedCookie
from services.gateway.endpoint import Dispatcher
from services.gateway.errors import Unauthorized
from services.gateway.requests import HttpRequest
from shared.messages import Caller
from shared.sealing import Sealer

CLIENT_ID: Final = "client_nest_console"
"""The client that operators log in to; the console registers it before its first login."""
IDLE_SECONDS: Final = 30 * 60
"""How long a session lives without a page."""
ABSOLUTE_SECONDS: Final = 12 * 60 * 60
"""How long a session lives at most."""
RENEWAL_SECONDS: Final = 60
"""How old a cookie becomes before a page renews it, and how long before its expiry an access token is refreshed."""
_SESSION_COOKIE: Final = "__Host-nest-console"
_CLIENT_ERRORS: Final = range(400, 429)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Session:
    """One operator's session, as the cookie holds it. Times are Unix seconds.

    Attributes:
        id: random, for the tokens of forms.
        address: that the operator proved to own, in normal form.
        user_id: the operator's user.
        started_at: time of the login.
        seen_at: time of the latest page that renewed the cookie.
        expires_at: of the access token.
    """

    id: str
    address: str
    user_id: str
    started_at: int
    seen_at: int
    access_token: str
    expires_at: int
    refresh_token: str


class OperatorAccess(Access):
    """A console behind a login.

    Args:
        dispatcher: verifies access tokens.
        calls: refreshes tokens and ends sessions.
        operators: names in the audit by address in normal form; empty names stand for the user's ID.
        issuer: URL of the gateway; the console answers only under its host.
        sealer: seals cookies.
        clock: Unix seconds.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        calls: Calls,
        *,
        operators: Mapping[str, str],
        issuer: str,
        sealer: Sealer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.operators = operators
        self.tokens = FormTokens(sealer)
        self._dispatcher = dispatcher
        self._calls = calls
        self._clock = clock
        url = urlsplit(issuer.lower())
        self._host = url.netloc.removesuffix(_DEFAULT_PORTS[url.scheme])
        self._origin = f"{url.scheme}://{self._host}"
        self._cookie = SealedCookie(
            sealer, _SESSION_COOKIE, seconds=IDLE_SECONDS, same_site="Strict", secure=True, clock=clock
        )

    def check_host(self, request: HttpRequest) -> None:
        """Check that the request names the host of the issuer."""
        if request.header(b"host").lower().removesuffix(":443").removesuffix(":80") != self._host:
            raise PageRefused(421, f"Open the console at {self._origin}/console.")

    def origin(self, request: HttpRequest) -> str:  # noqa: ARG002 -- the same for all
        """The issuer's origin."""
        return self._origin

    async def operator(self, request: HttpRequest) -> Operator | None:
        """The operator whose session the cookie is, with the renewed cookie if it is due; None without a session.

        Raises:
            PageRefused: the session could not be checked just now.
        """
        session = self._session(request)
        if session is None:
            return None
        checked = await self._checked(session, request)
        if checked is None:
            return None
        now = int(self._clock())
        # Requests of htmx may come from a page that updates itself, so they keep no session alive.
        if now >= session.seen_at + RENEWAL_SECONDS and b"hx-request" not in request.headers:
            checked = replace(checked, seen_at=now)
        return Operator(
            name=self.operators[session.address] or session.user_id,
            shown=session.address,
            csrf=self.tokens.token(session.id),
            headers=() if checked == session else (self._cookie_header(checked),),
        )

    def check_form(self, token: str, request: HttpRequest) -> None:
        """Check the token of a form against the session of the cookie."""
        session = self._session(request)
        self.tokens.check(token, "" if session is None else session.id)

    def begin(self, address: str, view: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Return the header with the cookie of a new session.

        Args:
            address: that the operator proved to own.
            view: the reply of `authenticate_user`.
        """
        now = int(self._clock())
        session = Session(
            id=secrets.token_hex(16),
            address=address,
            user_id=view["user_id"],
            started_at=now,
            seen_at=now,
            access_token=view["access_token"],
            expires_at=now + view["expires_in"],
            refresh_token=view["refresh_token"],
        )
        return self._cookie_header(session)

    async def end(self, request: HttpRequest) -> tuple[bytes, bytes]:
        """End the session of the cookie in Nest; return the header that removes the cookie.

        Raises:
            CallRefused: Nest could not end it just now.
        """
        session = self._session(request)
        if session is not None and (session := await self._checked(session, request)) is not None:
            caller = self._user(session, request)
            await self._calls.call(request, caller, "revoke_sessions", {"user_id": session.user_id, "which": "current"})
        return self._cookie.removal

    @property
    def removal(self) -> tuple[bytes, bytes]:
        """The header that removes the cookie."""
        return self._cookie.removal

    def _session(self, request: HttpRequest) -> Session | None:
        """The session that the cookie holds, within its bounds; whether it was ended is not known yet."""
        content = self._cookie.read(request)
        if content is None:
            return None
        try:
            session = Session(**content)
        except TypeError:
            return None  # A cookie of another release.
        over = self._clock() >= min(session.started_at + ABSOLUTE_SECONDS, session.seen_at + IDLE_SECONDS)
        return None if over or session.address not in self.operators else session

    async def _checked(self, session: Session, request: HttpRequest) -> Session | None:
        """The session, with new tokens if they were due; None if it was ended."""
        if self._clock() < session.expires_at - RENEWAL_SECONDS:
            try:
                self._user(session, request)
            except Unauthorized:
                pass  # Ended, or refreshed by another request at the same time: the refresh token tells.
            else:
                return session
        fields = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": session.refresh_token}
        try:
            view = await self._calls.call(request, self._anonymous(request), "authenticate_user", fields)
        except CallRefused as refused:
            if refused.status in _CLIENT_ERRORS:
                return None
            raise PageRefused(refused.status, "Your login cannot be checked just now. Reload the page soon.") from None
        return replace(
            session,
            access_token=view["access_token"],
            expires_at=int(self._clock()) + view["expires_in"],
            refresh_token=view["refresh_token"],
        )

    def _user(self, session: Session, request: HttpRequest) -> Caller:
        """The operator as a user.

        Raises:
            Unauthorized: the access token was revoked.
        """
        authenticator: Authenticator = self._dispatcher.authenticator
        client_ip = self._anonymous(request).client_ip
        return authenticator.caller(f"bearer {session.access_token}".encode("ascii"), client_ip)

    def _anonymous(self, request: HttpRequest) -> Caller:
        return self._dispatcher.anonymous(request)

    def _cookie_header(self, session: Session) -> tuple[bytes, bytes]:
        return self._cookie.header(asdict(session))
