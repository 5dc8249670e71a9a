"""Access to the console: open on this machine, or for operators who have logged in.

Every request must name this server in its `Host` header and must not come from a script of another site. A request that
changes something must also prove that a page of the console sent it: by its `Origin` or `Sec-Fetch-Site` header, and by
a token in the form that only those pages contain (OWASP, Cross-Site Request Forgery Prevention Cheat Sheet).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from services.gateway.requests import HttpRequest
from services.gateway.responses import HeaderList
from shared.messages import Caller
from shared.networks import is_loopback, is_loopback_host
from shared.sealing import Sealer

CALLER_PREFIX: Final = "console:"
"""Start of the key name of the console's calls in the audit. Names of internal keys contain no colon."""
LOCAL_NAME: Final = "local"
"""Name in the audit of everybody who uses an open console."""
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = b"x-csrf-token"
_PURPOSE: Final = "console form"
_SAFE: Final = frozenset({"GET", "HEAD"})
_FORWARDED: Final = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"via")


class PageRefused(Exception):
    """A request that no page answers.

    Attributes:
        status: HTTP status.
        sentence: what is wrong and what to do.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Operator:
    """The person behind a request.

    Attributes:
        name: in the audit, after `console:`.
        shown: in the header of pages; empty if the console is open.
        csrf: the token for forms.
        headers: of the response, such as the renewed cookie of the session.
    """

    name: str
    shown: str
    csrf: str
    headers: HeaderList = ()

    def caller(self, client_ip: str | None) -> Caller:
        """The caller of the methods that a page calls."""
        return Caller(kind="internal", client_ip=client_ip, key_name=CALLER_PREFIX + self.name)


class FormTokens:
    """Tokens in forms, each bound to one session."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def token(self, session_id: str) -> str:
        """The token of a session."""
        return self._sealer.keyed_hash(_PURPOSE, session_id.encode())

    def check(self, given: str, session_id: str) -> None:
        """Check the token of a form.

        Raises:
            PageRefused: it is missing or belongs to another session.
        """
        if not given.isascii() or not self._sealer.matches(_PURPOSE, given, session_id.encode()):
            raise PageRefused(403, "This form is out of date. Go back, reload the page and send it again.")


class Access(ABC):
    """Who may use the console."""

    def check(self, request: HttpRequest) -> None:
        """Check that a request was meant for this server and that no script of another site sent it.

        Raises:
            PageRefused: it was not.
        """
        self.check_host(request)
        origin, site = request.header(b"origin"), request.header(b"sec-fetch-site")
        if origin and origin != self.origin(request):
            raise PageRefused(403, "Another site has sent this request. Open the console in a tab of its own.")
        navigates = request.scope["method"] in _SAFE and request.header(b"sec-fetch-mode") == "navigate"
        if site and site not in {"same-origin", "none"} and not navigates:
            raise PageRefused(403, "Another site has sent this request. Open the console in a tab of its own.")
        if request.scope["method"] not in _SAFE and not origin and site != "same-origin":
            raise PageRefused(403, "The request does not say that a page of the console sent it. Use a newer browser.")

    @abstractmethod
    def check_host(self, request: HttpRequest) -> None:
        """Check that the request names this server.

        Raises:
            PageRefused: it names another one, or came over a way that is not allowed.
        """

    @abstractmethod
    def origin(self, request: HttpRequest) -> str:
        """Return the console's own origin, after ``check_host``."""

    @abstractmethod
    async def operator(self, request: HttpRequest) -> Operator | None:
        """Return who has sent the request; None if a login is needed."""

    @abstractmethod
    def check_form(self, token: str, request: HttpRequest) -> None:
        """Check the token of a form.

        Raises:
            PageRefused: it is missing or wrong.
        """


class OpenAccess(Access):
    """A console without login, for the person at this machine.

    It answers only over loopback and only under a name of this machine, so neither a host in the network nor a foreign
    page that resolves its name to this machine (DNS rebinding) reaches it. A proxy would hide both, so its requests are
    refused.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._tokens = FormTokens(sealer)

    def check_host(self, request: HttpRequest) -> None:
        """Check that the peer and the name are this machine's."""
        peer = request.scope.get("client")
        if peer is None or not is_loopback(peer[0]) or any(name in request.headers for name in _FORWARDED):
            raise PageRefused(
                403, "The console is open on this machine only. Set NEST_OPERATORS to log in from others."
            )
        try:
            host = urlsplit(f"//{request.header(b'host')}").hostname or ""
        except ValueError:
            host = ""
        if not is_loopback_host(host):
            raise PageRefused(421, "Open the console under http://127.0.0.1 or http://localhost, with its port.")

    def origin(self, request: HttpRequest) -> str:
        """The origin under the name that the request uses."""
        return f"http://{request.header(b'host').lower()}"

    async def operator(self, request: HttpRequest) -> Operator | None:  # noqa: ARG002 -- everybody is one
        """The person at this machine."""
        return Operator(LOCAL_NAME, "", self._tokens.token(LOCAL_NAME))

    def check_form(self, token: str, request: HttpRequest) -> None:  # noqa: ARG002 -- there are no sessions
        """Check the token of a form."""
        self._tokens.check(token, LOCAL_NAME)
