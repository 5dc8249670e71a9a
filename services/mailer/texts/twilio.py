"""Twilio client: sends texts through the Messages API.

https://www.twilio.com/docs/messaging/api/message-resource. The API has no idempotency key, so before a retry Twilio is
queried for a text that it may have accepted already.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import OrderedDict
from typing import Any, Final

import aiohttp
from pydantic import SecretStr

from services.mailer.deliveries.models import Accepted, Deferred, Outcome, Rejected
from services.mailer.texts.providers import Text, TextProvider
from shared.circuit_breaker import CircuitBreaker
from shared.tracing import http_request

API: Final = "https://api.twilio.com"
VERSION: Final = "/2010-04-01"
"""Version of the API, the first segment of every path (https://www.twilio.com/docs/usage/api)."""
MAX_CONCURRENT_REQUESTS: Final = 8
"""Twilio queues accepted texts itself, so more would gain nothing."""
WAIT_SECONDS: Final = 5.0
"""How long a text waits for a free request slot."""
MAX_VALIDITY_SECONDS: Final = 36_000
"""Maximum of Twilio's ``ValidityPeriod``: how long Twilio keeps a text in its queue."""
SEARCHED_TEXTS: Final = 20
"""Number of latest texts to a number that are searched; our rate limits allow fewer per day."""
MAX_RESPONSE_BYTES: Final = 262_144
"""More than a page of texts with the longest bodies."""
MAX_REMEMBERED: Final = 4096
MAX_REASON_CHARACTERS: Final = 300
NOT_ABOUT_TEXT: Final = frozenset({401, 403, 404, 407, 408, 409, 425, 429})
"""Client errors about the account, its key or a rate limit: an operator corrects them or time does; the text itself is
fine."""
UNSENT: Final = frozenset({"failed", "undelivered", "canceled"})
_SUCCESS: Final = range(200, 300)
_CLIENT_ERRORS: Final = range(400, 500)
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


class _Refused(Exception):
    """An error response of Twilio."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Twilio(TextProvider):
    """Text provider that uses Twilio. Must be created in a running event loop.

    Args:
        account_sid: ``AC…``, the account that is billed.
        token: the account's secret.
        messaging_service_sid: ``MG…``, the Messaging Service that chooses the number or name a text is sent from.
        timeout: seconds for one text, including the query for an earlier attempt.
        api_base: the URL of a test double; None for Twilio's.
    """

    def __init__(
        self,
        account_sid: str,
        token: SecretStr,
        messaging_service_sid: str,
        *,
        timeout: float,
        api_base: str | None = None,
    ) -> None:
        self._base = api_base or API
        self._messages = f"{VERSION}/Accounts/{account_sid}/Messages.json"
        self._http = aiohttp.ClientSession(
            headers={
                "accept": "application/json",
                "authorization": aiohttp.encode_basic_auth(account_sid, token.get_secret_value()),
            },
            connector=aiohttp.TCPConnector(limit=MAX_CONCURRENT_REQUESTS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._service = messaging_service_sid
        self._timeout = timeout
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
        self._breaker = CircuitBreaker("twilio")
        self._accepted: OrderedDict[str, Accepted] = OrderedDict()

    async def send(self, text: Text) -> Outcome:
        """Try once to send a text; takes at most ``WAIT_SECONDS`` plus the timeout.

        A text that this process has sent is not sent again: its order is redelivered if its outcome could not be
        stored.
        """
        if (accepted := self._accepted.get(text.order_id)) is not None:
            return accepted
        if (reason := self._breaker.rejection) is not None:
            return Deferred(reason)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            return Deferred("all connections are busy")
        try:
            if (reason := self._breaker.before_call()) is not None:
                return Deferred(reason)
            return await self._attempt(text)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _attempt(self, text: Text) -> Outcome:
        try:
            async with asyncio.timeout(self._timeout):
                sid = await self._find_earlier(text) if text.may_have_been_sent else None
                sid = sid or await self._create(text)
        except TimeoutError:
            return self._failed(f"no answer within {self._timeout:g} s")
        except _Refused as refused:
            return self._outcome(refused, text)
        # ValueError: a response that is not the API's, for example of a proxy.
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            return self._failed(_reason(f"{type(failure).__name__}: {failure}", text))
        self._breaker.succeeded()
        accepted = self._accepted[text.order_id] = Accepted(sid)
        if len(self._accepted) > MAX_REMEMBERED:
            self._accepted.popitem(last=False)
        return accepted

    async def _create(self, text: Text) -> str:
        """Create the message at Twilio and return its SID."""
        form = {
            "To": text.to,
            "Body": text.body,
            "MessagingServiceSid": self._service,
            # A text that arrives after its code has expired is worse than none.
            "ValidityPeriod": str(min(max(1, int(text.useful_for.total_seconds())), MAX_VALIDITY_SECONDS)),
        }
        message = await self._call("create the text", "POST", self._messages, form=form)
        return _sid(message)

    async def _find_earlier(self, text: Text) -> str | None:
        """Return the SID of the same text if Twilio has accepted it already. Codes make every body unique."""
        path: str | None = self._messages
        query: dict[str, str] | None = {"To": text.to, "PageSize": str(SEARCHED_TEXTS)}
        searched = 0
        while path is not None and searched < SEARCHED_TEXTS:
            page = await self._call("search the earlier texts", "GET", path, query=query)
            messages = page.get("messages")
            if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
                raise ValueError("the page has no list of messages")
            for message in messages:
                # Compared by containment: trial accounts prepend a line to the body.
                if text.body in (message.get("body") or "") and message.get("status") not in UNSENT:
                    return _sid(message)
            searched += max(1, len(messages))
            path, query = _next_page(page), None
        return None

    async def _call(
        self,
        purpose: str,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        form: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request and return the JSON object of its response.

        Redirects are not followed: they would send the number and the account's token elsewhere.

        Raises:
            _Refused: the status is not 2xx.
            aiohttp.ClientError, OSError: Twilio cannot be reached.
            ValueError: the response is not a JSON object, or too long.
        """
        url = self._base + path
        with http_request(method, url) as span:
            async with self._http.request(method, url, params=query, data=form, allow_redirects=False) as response:
                span.responded(response.status)
                body = await _read(response)
        if response.status not in _SUCCESS:
            raise _refusal(purpose, response.status, body)
        return _object(body)

    def _outcome(self, refused: _Refused, text: Text) -> Outcome:
        """Classify an error by its HTTP status: Twilio advises against relying on its error codes, which change."""
        reason = _reason(refused.reason, text)
        if refused.status in _CLIENT_ERRORS and refused.status not in NOT_ABOUT_TEXT:
            self._breaker.succeeded()
            return Rejected(reason)
        return self._failed(reason)

    def _failed(self, reason: str) -> Deferred:
        self._breaker.failed(reason)
        return Deferred(reason)


def _reason(message: str, text: Text) -> str:
    """Return an error message that may be stored: ASCII, bounded, without the number."""
    return _UNPRINTABLE.sub("?", message.replace(text.to, "<recipient>").replace(text.to[1:], "<recipient>"))[
        :MAX_REASON_CHARACTERS
    ]


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read a response of at most ``MAX_RESPONSE_BYTES``.

    Raises:
        ValueError: it is longer.
    """
    try:
        body = await response.content.readexactly(MAX_RESPONSE_BYTES + 1)
    except asyncio.IncompleteReadError as complete:
        return complete.partial
    raise ValueError(f"the response has more than {len(body) - 1} bytes")


def _object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: the body is none.
    """
    try:
        parsed = json.loads(body)
    except RecursionError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError("the response is not a JSON object")  # noqa: TRY004 -- wrong data, not a wrong argument
    return parsed


def _sid(message: dict[str, Any]) -> str:
    """Return the SID of a message.

    Raises:
        ValueError: it has none.
    """
    sid = message.get("sid")
    if not isinstance(sid, str) or not sid:
        raise ValueError("the message has no SID")
    return sid


def _next_page(page: dict[str, Any]) -> str | None:
    """Return the path of the next page; None at the end.

    Raises:
        ValueError: it is not a path of the API. The account's token is sent to no other host.
    """
    path = page.get("next_page_uri")
    if path is None:
        return None
    if not isinstance(path, str) or not path.startswith(f"{VERSION}/"):
        raise ValueError("next_page_uri is not a path of the API")
    return path


def _refusal(purpose: str, status: int, body: bytes) -> _Refused:
    """Build the error of a response.

    Its JSON has ``code`` and ``message`` (https://www.twilio.com/docs/usage/twilios-response), or it is a problem
    document with ``code``, ``title`` and ``detail`` (RFC 9457).
    """
    try:
        error = _object(body)
    except ValueError:
        error = {}
    code = error.get("code", status)
    message = error.get("message") or error.get("detail") or error.get("title") or f"could not {purpose}"
    return _Refused(status, f"{status} {code}: {message}")
