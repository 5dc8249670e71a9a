"""How is Stripe called? In time, at its pace, repeated where that helps, and not at all while it is down.

The only file that uses Stripe's library. What is asked and ordered over it say its neighbours.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

import aiohttp
import stripe
from prometheus_client import Histogram

from services.billing.stripe_api.parsing import Json
from services.billing.stripe_api.token_bucket import Pace
from shared.circuit_breaker import CircuitBreaker
from shared.messages.billing.errors import StripeUnavailable
from shared.telemetry import log

API_VERSION: Final = "2026-10-28.endive"
"""What the objects look like that billing reads; the one that the library in the lock was generated for."""
TRIES: Final = 3
PAGE: Final = 100
PAGES: Final = 50
"""No list of one payer's has 5,000 entries; a bound keeps a wrong answer from being read for ever."""
WAITED_FOR: Final = 0.25
"""The share of the rate that is kept for calls that somebody waits for: a storm of renewals must not take it."""
BEHIND: Final = 0.25
"""The most of the rate that work without haste takes, as comparing with Stripe does, and only while others leave it."""
GIVING_WAY: Final = 0.05
"""Seconds until such work looks again whether a place is free."""
HTTP_CONFLICT: Final = 409
HTTP_TOO_MANY: Final = 429
HTTP_SERVER_ERROR: Final = 500

# It would send the platform and the timings of earlier calls with every call, and spend a quarter of its time on it.
stripe.enable_telemetry = False
# At debug level it writes whole answers, portal links among them.
logging.getLogger("stripe").setLevel(logging.WARNING)

_SECONDS: Final = Histogram(
    "nest_stripe_call_seconds",
    "Attempts of calls to Stripe.",
    ["call", "outcome"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long Stripe may take, in seconds.

    Attributes:
        attempt: for one attempt; the library by itself waits 80, longer than anybody who asked.
        call: for a call with its repeats, and with the wait for its place.
        portal: for a portal link, which somebody waits for who only asked for a status.
        pause: before the first repeat, on average; before each further one twice as long.
    """

    attempt: float = 6.0
    call: float = 20.0
    portal: float = 2.0
    pause: float = 0.3


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a failed attempt means.

    Attributes:
        error: what to raise when it isn't made again.
        again: whether another attempt, under the same key, may do.
        down: whether it says that Stripe is not well.
    """

    error: Exception
    again: bool
    down: bool


class Calls:
    """Calls to one Stripe account.

    Each ends within its time, is repeated under its key where that can help, and raises StripeUnavailable when Stripe
    can't be reached, is too slow, limits us, or refuses our key (which an operator mends).

    Args:
        client: the library's client; it must not retry by itself.
        breaker: refuses calls while Stripe is down.
        rate: calls a second, for this process.
        patience: how long a call may take; it may be changed at any time.
    """

    def __init__(
        self, client: stripe.StripeClient, *, breaker: CircuitBreaker, rate: float, patience: Patience
    ) -> None:
        self.patience = patience
        self.breaker = breaker
        self._client = client
        self._pace = Pace(rate * (1 - WAITED_FOR))
        self._pace_waited_for = Pace(rate * WAITED_FOR)
        self._pace_behind = Pace(rate * BEHIND)
        self._ahead: Pace | None = None
        self._until = float("inf")

    def within(self, seconds: float) -> Self:
        """The same account, for somebody who waits: the calls all end within some seconds from now."""
        bounded = copy.copy(self)
        bounded._until = asyncio.get_running_loop().time() + seconds  # noqa: SLF001 -- its own class
        bounded._pace = self._pace_waited_for  # noqa: SLF001 -- its own class
        return bounded

    def behind(self) -> Self:
        """The same account, for work that has time: its calls are few, and each gives way to all others."""
        patient = copy.copy(self)
        patient._pace, patient._ahead = self._pace_behind, self._pace  # noqa: SLF001 -- its own class
        return patient

    async def get(self, name: str, path: str, params: Json) -> Json:
        """Read an object.

        Args:
            name: of the call, for metrics.
            path: ``/v1/…``.
            params: in the query.

        Raises:
            StripeRefused: with code ``resource_missing`` when it isn't there.
            StripeUnavailable: as said above.
        """
        return await self._call(name, "get", path, params, options={}, tries=TRIES)

    async def post(self, name: str, path: str, params: Json, *, key: str | None = None, tries: int = TRIES) -> Json:
        """Order something.

        Args:
            name: of the call, for metrics.
            path: ``/v1/…``.
            params: in the body.
            key: under which a repeat, of whichever process, gets the first answer; None where nobody needs that.
            tries: how often at the most.

        Raises:
            KeySpent: the key won't make one; look whether there is one.
            StripeRefused, StripeUnavailable: as said above.
        """
        return await self._call(name, "post", path, params, options=_under(key), tries=tries)

    async def delete(self, name: str, path: str, params: Json, *, key: str | None = None) -> Json:
        """End something; as ``post``."""
        return await self._call(name, "delete", path, params, options=_under(key), tries=TRIES)

    async def pages(self, name: str, path: str, params: Json) -> AsyncIterator[Json]:
        """All entries of a list, however many pages it has; as ``get``."""
        cursor: Json = {}
        for _ in range(PAGES):
            page = await self.get(name, path, {**params, "limit": PAGE, **cursor})
            for found in page["data"]:
                yield found
            if not page["has_more"]:
                return
            cursor = {"starting_after": page["data"][-1]["id"]}

    async def _call(self, name: str, method: str, path: str, params: Json, *, options: Json, tries: int) -> Json:
        loop = asyncio.get_running_loop()
        until = min(self._until, loop.time() + self.patience.call)
        for attempt in range(1, tries + 1):
            await self._take_place(until)
            if self.breaker.before_call() is not None:
                raise StripeUnavailable
            began = loop.time()
            try:
                async with asyncio.timeout_at(min(until, began + self.patience.attempt)):
                    answer = await self._client.raw_request_async(method, path, **params, **options)
            except (stripe.StripeError, aiohttp.ClientError, TimeoutError, OSError) as failure:
                verdict = _judge(failure)
                _SECONDS.labels(name, type(failure).__name__).observe(loop.time() - began)
                if verdict.down:
                    self.breaker.failed(type(failure).__name__)
                else:
                    self.breaker.succeeded()
                pause = self.patience.pause * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 -- jitter
                if not verdict.again:
                    raise verdict.error from failure
                log.warning("stripe call failed", call=name, error=type(failure).__name__, attempt=attempt)
                if attempt == tries or loop.time() + pause >= until:
                    raise verdict.error from failure
                await asyncio.sleep(pause)
            else:
                _SECONDS.labels(name, "ok").observe(loop.time() - began)
                self.breaker.succeeded()
                return dict(answer.data)
        raise AssertionError("the last attempt returns or raises")

    async def _take_place(self, until: float) -> None:
        if self.breaker.rejection is not None:
            # No place is to be taken by calls that won't be made.
            raise StripeUnavailable
        loop = asyncio.get_running_loop()
        wait = self._pace.place(until=until - loop.time())
        if wait is None:
            raise StripeUnavailable
        if wait:
            await asyncio.sleep(wait)
        while self._ahead is not None and self._ahead.place(until=0.0) is None:
            if loop.time() + GIVING_WAY > until:
                raise StripeUnavailable
            await asyncio.sleep(GIVING_WAY)


def _under(key: str | None) -> Json:
    # One key for all attempts of a call, even where nobody needs it later.
    return {"idempotency_key": key or f"nest:{random.getrandbits(128):032x}"}


def _judge(failure: Exception) -> _Verdict:
    """What a failed attempt means (https://docs.stripe.com/api/errors, /api/idempotent_requests)."""
    if not isinstance(failure, stripe.StripeError) or failure.http_status is None:
        return _Verdict(StripeUnavailable(), again=True, down=True)
    status, headers = failure.http_status, failure.headers or {}
    if isinstance(failure, stripe.IdempotencyError) and status != HTTP_CONFLICT:
        return _Verdict(KeySpent(), again=False, down=False)
    if status >= HTTP_SERVER_ERROR and headers.get("idempotent-replayed") == "true":
        # The key keeps this answer for a day: asking again under it gives the same.
        return _Verdict(KeySpent(), again=False, down=False)
    if status in (HTTP_CONFLICT, HTTP_TOO_MANY):
        # The library itself repeats no 429. Stripe says in a header when it knows that a repeat is of no use.
        return _Verdict(StripeUnavailable(), again=headers.get("stripe-should-retry") != "false", down=False)
    if status >= HTTP_SERVER_ERROR or status < 400:  # noqa: PLR2004 -- an answer that is not JSON
        return _Verdict(StripeUnavailable(), again=headers.get("stripe-should-retry") != "false", down=True)
    if isinstance(failure, stripe.AuthenticationError | stripe.PermissionError):
        log.error("stripe refuses our key", status=status, request=failure.request_id)
        return _Verdict(StripeUnavailable(), again=False, down=False)
    if headers.get("stripe-should-retry") == "true":
        return _Verdict(StripeUnavailable(), again=True, down=False)
    refused = StripeRefused(str(failure.code or ""), str(getattr(failure, "param", None) or ""))
    return _Verdict(refused, again=False, down=False)


@asynccontextmanager
async def opened(*, api_key: str, api_base: str | None, rate: float, patience: Patience) -> AsyncIterator[Calls]:
    """Calls to a Stripe account, its connections closed at the end.

    Args:
        api_key: of the account, in one of its modes.
        api_base: where to call instead of Stripe; None for Stripe itself.
        rate: calls a second, for this process.
        patience: how long a call may take.
    """
    # Over aiohttp, not httpx, which the library would take: 0.25 instead of 2 ms of CPU a call at 32 callers.
    transport = stripe.AIOHTTPClient(timeout=None)
    client = stripe.StripeClient(
        api_key,
        http_client=transport,
        stripe_version=API_VERSION,
        base_addresses={} if api_base is None else {"api": api_base},
        max_network_retries=0,
    )
    breaker = CircuitBreaker("stripe", failures=5, first_pause=1.0)
    try:
        yield Calls(client, breaker=breaker, rate=rate, patience=patience)
    finally:
        await transport.close_async()  # type: ignore[no-untyped-call]  # the library's own gap


class KeySpent(Exception):
    """An idempotency key won't make anything any more: it answers a failure again, or stands for other parameters.

    Whether the thing was made is to be found out by looking for it.
    """


class StripeRefused(Exception):
    """Stripe takes an order as wrong in itself: a fault of ours, or of what a person gave us.

    Attributes:
        code: Stripe's error code, empty for none.
        param: the parameter at fault, empty for none.
    """

    def __init__(self, code: str, param: str) -> None:
        super().__init__(f"code {code or 'none'}, parameter {param or 'none'}")
        self.code = code
        self.param = param
