"""How does a text get to Twilio? One request to its Messages API, by its own library.

https://www.twilio.com/docs/messaging/api/message-resource. The API knows no idempotency key, so where an earlier try
may have been taken, Twilio is asked for it first.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from aiohttp import ClientError
from twilio.auth_strategy.auth_strategy import AuthStrategy
from twilio.auth_strategy.auth_type import AuthType
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.credential.credential_provider import CredentialProvider
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client

from services.mailer.models.deliveries import HandedOver, HandOver, PutOff, TurnedDown
from services.mailer.sms import Text
from shared.circuit_breaker import CircuitBreaker

CONNECTIONS: Final = 8
"""Requests at once; Twilio queues what it has taken, so more would gain nothing."""
WAIT_SECONDS: Final = 5.0
"""How long a text waits for its turn."""
LONGEST_VALIDITY: Final = 36_000
"""Seconds that Twilio keeps a text in its queue at most (``ValidityPeriod``)."""
LOOKED_THROUGH: Final = 20
"""So many of the latest texts to a number are looked through; our own limits let fewer go out in a day."""
REMEMBERED: Final = 4096
REASON_CHARACTERS: Final = 300
NOT_ITS_FAULT: Final = frozenset({401, 403, 404, 407, 408, 409, 425, 429})
"""The account, its key or its pace is at fault: an operator or time mends that, the text is not to blame."""
GONE_WRONG: Final = frozenset({"failed", "undelivered", "canceled"})
_CLIENT_ERRORS: Final = range(400, 500)
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioAccount:
    """Who pays, and who appears as the sender.

    Attributes:
        sid: ``AC…``.
        token: the account's secret.
        messaging_service_sid: ``MG…``: a Messaging Service chooses the number or name that a text comes from.
        api_base: another server than Twilio's, for tests; None for Twilio's.
    """

    sid: str
    token: str
    messaging_service_sid: str
    api_base: str | None = None


class _Basic(CredentialProvider, AuthStrategy):  # type: ignore[misc]
    """Basic authentication (RFC 7617). The library's own way to it is one that aiohttp warns of."""

    def __init__(self, account: TwilioAccount) -> None:
        super().__init__(AuthType.BASIC)
        self._header = "Basic " + base64.b64encode(f"{account.sid}:{account.token}".encode()).decode()

    def to_auth_strategy(self) -> _Basic:
        """What makes the header."""
        return self

    def get_auth_string(self) -> str:
        """The header ``authorization``."""
        return self._header

    def requires_authentication(self) -> bool:
        """Always."""
        return True


class Twilio:
    """Hands texts over to Twilio. Made where an event loop runs.

    Args:
        account: whose texts they are.
        timeout: seconds that one text may take, its question for an earlier try included.
    """

    def __init__(self, account: TwilioAccount, *, timeout: float) -> None:
        # The library writes numbers and bodies into its log, at levels that are off unless somebody turns them on.
        silent = logging.getLogger("nest.twilio")
        silent.setLevel(logging.CRITICAL)
        self._http = AsyncTwilioHttpClient(logger=silent)
        self._client = Client(
            account_sid=account.sid,
            credential_provider=_Basic(account),
            http_client=self._http,
            # Something in place of the process's environment, which else may redirect the library.
            environment={"TWILIO_REGION": ""},
        )
        if account.api_base is not None:
            self._client.api.base_url = account.api_base
        self._service = account.messaging_service_sid
        self._timeout = timeout
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._breaker = CircuitBreaker("twilio")
        self._accepted: OrderedDict[str, HandedOver] = OrderedDict()

    async def hand_over(self, text: Text) -> HandOver:
        """Try once to hand a text over; takes the time-out and some seconds of waiting at most.

        A text that this process has handed over is not handed over again: its order may come back when the outcome
        could not be stored.
        """
        if (accepted := self._accepted.get(text.order_id)) is not None:
            return accepted
        if (reason := self._breaker.refusal) is not None:
            return PutOff(reason)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            return PutOff("all connections are busy")
        try:
            if (reason := self._breaker.admit()) is not None:
                return PutOff(reason)
            return await self._try(text)
        finally:
            self._free.release()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _try(self, text: Text) -> HandOver:
        try:
            async with asyncio.timeout(self._timeout):
                sid = await self._sent_before(text) if text.perhaps_sent else None
                sid = sid or await self._send(text)
        except TimeoutError:
            return self._down(f"no answer within {self._timeout:g} s")
        except (TwilioRestException, TwilioServiceException) as answer:
            return self._judged(answer, text)
        # ValueError: an answer that is no JSON, from something in between.
        except (TwilioException, ClientError, OSError, ValueError) as failure:
            return self._down(_shown(f"{type(failure).__name__}: {failure}", text))
        self._breaker.succeeded()
        taken = self._accepted[text.order_id] = HandedOver(sid)
        if len(self._accepted) > REMEMBERED:
            self._accepted.popitem(last=False)
        return taken

    async def _send(self, text: Text) -> str:
        """The id that Twilio has given to a text.

        Raises:
            TwilioException, ClientError, OSError, ValueError: it has taken none, or not said so.
        """
        message = await self._client.messages.create_async(
            to=text.to,
            body=text.body,
            messaging_service_sid=self._service,
            # Rather not at all than when its code works no longer.
            validity_period=min(max(1, int(text.useful_for.total_seconds())), LONGEST_VALIDITY),
        )
        return str(message.sid)

    async def _sent_before(self, text: Text) -> str | None:
        """The id of a text like this that Twilio has taken already. Codes make every body different.

        Raises:
            TwilioException, ClientError, OSError, ValueError: it can't be told.
        """
        for message in await self._client.messages.list_async(to=text.to, limit=LOOKED_THROUGH):
            # Contained, since a trial account's texts are given a head.
            if text.body in (message.body or "") and message.status not in GONE_WRONG:
                return str(message.sid)
        return None

    def _judged(self, answer: TwilioRestException | TwilioServiceException, text: Text) -> HandOver:
        """What a refusal says. By its status: Twilio asks not to build on its error codes, which it keeps changing."""
        words = answer.msg if isinstance(answer, TwilioRestException) else answer.detail or answer.title
        reason = _shown(f"{answer.status} {answer.code}: {words}", text)
        if answer.status in _CLIENT_ERRORS and answer.status not in NOT_ITS_FAULT:
            self._breaker.succeeded()
            return TurnedDown(reason)
        return self._down(reason)

    def _down(self, reason: str) -> PutOff:
        self._breaker.failed(reason)
        return PutOff(reason)


def _shown(said: str, text: Text) -> str:
    """What was said, as we may keep it: ASCII, bounded, without the number."""
    return _UNPRINTABLE.sub("?", said.replace(text.to, "<recipient>").replace(text.to[1:], "<recipient>"))[
        :REASON_CHARACTERS
    ]
