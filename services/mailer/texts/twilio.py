"""Twilio client: sends texts through the Messages API, using Twilio's library.

https://www.twilio.com/docs/messaging/api/message-resource. The API has no idempotency key, so before a retry Twilio is
queried for a text that it may have accepted already.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections import OrderedDict
from typing import Final

from aiohttp import ClientError
from pydantic import SecretStr
from twilio.auth_strategy.auth_strategy import AuthStrategy
from twilio.auth_strategy.auth_type import AuthType
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.credential.credential_provider import CredentialProvider
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client

from services.mailer.deliveries.models import Accepted, Deferred, Outcome, Rejected
from services.mailer.texts.providers import Text, TextProvider
from shared.circuit_breaker import CircuitBreaker

MAX_CONCURRENT_REQUESTS: Final = 8
"""Twilio queues accepted texts itself, so more would gain nothing."""
WAIT_SECONDS: Final = 5.0
"""How long a text waits for a free request slot."""
MAX_VALIDITY_SECONDS: Final = 36_000
"""Maximum of Twilio's ``ValidityPeriod``: how long Twilio keeps a text in its queue."""
SEARCHED_TEXTS: Final = 20
"""Number of latest texts to a number that are searched; our rate limits allow fewer per day."""
MAX_REMEMBERED: Final = 4096
MAX_REASON_CHARACTERS: Final = 300
NOT_ABOUT_TEXT: Final = frozenset({401, 403, 404, 407, 408, 409, 425, 429})
"""Client errors about the account, its key or a rate limit: an operator corrects them or time does; the text itself is
fine."""
UNSENT: Final = frozenset({"failed", "undelivered", "canceled"})
_CLIENT_ERRORS: Final = range(400, 500)
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


class _BasicAuth(CredentialProvider, AuthStrategy):  # type: ignore[misc]
    """HTTP Basic authentication (RFC 7617); the library's implementation triggers a deprecation warning of aiohttp."""

    def __init__(self, account_sid: str, token: SecretStr) -> None:
        super().__init__(AuthType.BASIC)
        self._header = "Basic " + base64.b64encode(f"{account_sid}:{token.get_secret_value()}".encode()).decode()

    def to_auth_strategy(self) -> _BasicAuth:
        """Return the object that makes the header."""
        return self

    def get_auth_string(self) -> str:
        """Return the value of the ``authorization`` header."""
        return self._header

    def requires_authentication(self) -> bool:
        """Return True."""
        return True


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
        # The library logs numbers and bodies, at levels that are off by default.
        silent = logging.getLogger("nest.twilio")
        silent.setLevel(logging.CRITICAL)
        self._http = AsyncTwilioHttpClient(logger=silent)
        self._client = Client(
            account_sid=account_sid,
            credential_provider=_BasicAuth(account_sid, token),
            http_client=self._http,
            # Not empty: otherwise the library reads the process's environment, which may change the API's URL.
            environment={"TWILIO_REGION": ""},
        )
        if api_base is not None:
            self._client.api.base_url = api_base
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
        except (TwilioRestException, TwilioServiceException) as error:
            return self._outcome(error, text)
        # ValueError: an answer that is not JSON, for example of a proxy.
        except (TwilioException, ClientError, OSError, ValueError) as failure:
            return self._failed(_reason(f"{type(failure).__name__}: {failure}", text))
        self._breaker.succeeded()
        accepted = self._accepted[text.order_id] = Accepted(sid)
        if len(self._accepted) > MAX_REMEMBERED:
            self._accepted.popitem(last=False)
        return accepted

    async def _create(self, text: Text) -> str:
        """Create the message at Twilio and return its SID."""
        message = await self._client.messages.create_async(
            to=text.to,
            body=text.body,
            messaging_service_sid=self._service,
            # A text that arrives after its code has expired is worse than none.
            validity_period=min(max(1, int(text.useful_for.total_seconds())), MAX_VALIDITY_SECONDS),
        )
        return str(message.sid)

    async def _find_earlier(self, text: Text) -> str | None:
        """Return the SID of the same text if Twilio has accepted it already. Codes make every body unique."""
        for message in await self._client.messages.list_async(to=text.to, limit=SEARCHED_TEXTS):
            # Compared by containment: trial accounts prepend a line to the body.
            if text.body in (message.body or "") and message.status not in UNSENT:
                return str(message.sid)
        return None

    def _outcome(self, error: TwilioRestException | TwilioServiceException, text: Text) -> Outcome:
        """Classify an error by its HTTP status: Twilio advises against relying on its error codes, which change."""
        message = error.msg if isinstance(error, TwilioRestException) else error.detail or error.title
        reason = _reason(f"{error.status} {error.code}: {message}", text)
        if error.status in _CLIENT_ERRORS and error.status not in NOT_ABOUT_TEXT:
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
