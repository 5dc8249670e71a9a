"""HTTP calls to Stripe with timeouts, rate limits, retries and a circuit breaker.

The only file that imports Stripe's library.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import aiohttp
import stripe
from prometheus_client import Counter, Histogram
from pydantic import SecretStr

from services.billing.stripe_api.call_queue import (
    ADMISSION_SECONDS,
    CallContext,
    CallQueue,
    Priority,
    StripeBusy,
    call_context,
)
from services.billing.stripe_api.families import Family, FamilyBreakers, NoSlot
from services.billing.stripe_api.parsing import Json
from shared.messages.billing.errors import StripeUnavailable
from shared.telemetry import log
from shared.tracing import Span, http_request

API_VERSION: Final = "2026-10-28.endive"
"""Version of the objects that billing reads; the locked release of Stripe's library was generated for it."""
MAX_ATTEMPTS: Final = 3
PAGE_SIZE: Final = 100
MAX_PAGES: Final = 50
"""No customer has lists of 5,000 entries; the bound stops an endless loop over a wrong answer."""
RESOURCE_MISSING: Final = "resource_missing"
"""Stripe's error code for an object that does not exist."""
HTTP_CONFLICT: Final = 409
HTTP_FAILED_DEPENDENCY: Final = 424
"""Stripe's status for a failure of a system that it depends on, such as a bank; a retry may help."""
HTTP_TOO_MANY: Final = 429
HTTP_SERVER_ERROR: Final = 500

# The library's telemetry adds the platform and the timings of earlier calls to every call and takes a quarter of its
# time.
stripe.enable_telemetry = False
# At debug level the library logs whole responses, portal links among them.
logging.getLogger("stripe").setLevel(logging.WARNING)

_SECONDS: Final = Histogram(
    "nest_stripe_call_seconds",
    "Duration of attempts to call Stripe, by endpoint family, call and outcome.",
    ["family", "call", "outcome"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0),
)
_REJECTED: Final = Counter(
    "nest_stripe_calls_rejected",
    "Calls to Stripe that were not made, by endpoint family and reason: breaker (its circuit is open), rate (no token "
    "of the rate limit before the deadline), busy (postponed).",
    ["family", "reason"],
)
_REFUSALS: Final = Counter(
    "nest_stripe_refusals",
    "Calls that Stripe refused for good, by call and Stripe's error code.",
    ["call", "code"],
)


class KeySpent(Exception):
    """An idempotency key can no longer create anything: it repeats a failure, or belongs to other parameters.

    The object may exist nevertheless: look it up.
    """


class RightMissing(StripeUnavailable, code="unavailable"):
    """A restricted API key lacks a right; an operator must grant it (``nest stripe setup`` names it)."""


class StripeRefused(Exception):
    """Stripe refused a request, and would refuse a repeat: because of a person's input, a setting or a bug in Nest.

    Examples: an archived price, a customer with another currency or without a tax address, a declined card
    (https://docs.stripe.com/error-handling).

    Attributes:
        code: Stripe's error code; empty for none.
        param: the invalid parameter; empty for none.
        call: name of the call.
        request_id: Stripe's ID of the request, which its dashboard finds; empty for none.
    """

    def __init__(self, code: str, param: str, *, call: str = "", request_id: str = "") -> None:
        super().__init__(f"code {code or 'none'}, parameter {param or 'none'}")
        self.code = code
        self.param = param
        self.call = call
        self.request_id = request_id

    @property
    def rejects_email(self) -> bool:
        """Whether the address of a customer is the reason."""
        return self.param == "email" or self.code == "email_invalid"

    def report(self, **fields: str) -> None:
        """Count and log the refusal for operators, with ``fields`` that name our object.

        Stripe's message is left out, since it may quote personal data.
        """
        _report_refusal(self.call, self.code or "none", param=self.param, request=self.request_id, **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Timeouts of calls to Stripe, in seconds.

    Attributes:
        attempt: of one attempt; the library's default of 80 is longer than any caller waits.
        call: of a call with its retries and its wait for the rate limit.
        portal: of a call for a portal session, whose caller waits.
        retry_pause: average pause before the first retry; it doubles before each further one.
    """

    attempt: float = 6.0
    call: float = 20.0
    portal: float = 4.0
    retry_pause: float = 0.3


@dataclass(frozen=True, slots=True)
class _Failure:
    """A failed attempt: its error, whether a retry under the same key may help, and whether the breaker counts it."""

    error: Exception
    retry: bool
    outage: bool


class Calls:
    """Calls to one Stripe account.

    Each call ends within its timeout and is retried under its idempotency key where that can help. It raises
    StripeUnavailable if Stripe is unreachable, too slow, limits our rate, or rejects our API key (which an operator
    must fix). While a command is handled that can be postponed, its first call may raise StripeBusy instead.

    The message that is being handled gives the priority of a call and its deadline (``calls_for``). Outside of one, a
    call has the priority of a query after ``within``, otherwise that of the background.

    Args:
        client: the library's client, configured without retries.
        base: the URL of the API, for traces.
        rate: calls per second of this process.
        timeouts: may be replaced at any time.

    Attributes:
        breaker: rejects the calls to an endpoint family during an outage of it.
    """

    def __init__(self, client: stripe.StripeClient, *, base: str, rate: float, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self.breaker = FamilyBreakers()
        self._client = client
        self._base = base
        self._queue = CallQueue(rate)
        self._priority: Priority | None = None
        self._deadline = float("inf")

    def within(self, seconds: float) -> Self:
        """The same account for a caller who waits: all calls end within so many seconds from now."""
        interactive = copy.copy(self)
        interactive._deadline = asyncio.get_running_loop().time() + seconds  # noqa: SLF001 -- its own class
        return interactive

    def low_priority(self) -> Self:
        """The same account for work that can wait: its calls have a lower rate and yield to all others."""
        yielding = copy.copy(self)
        yielding._priority = Priority.LOW  # noqa: SLF001 -- its own class
        return yielding

    async def get(self, name: str, path: str, params: Json) -> Json:
        """Read an object by its path, ``/v1/…``; ``name`` identifies the call in metrics.

        Raises StripeRefused with code ``resource_missing`` if it does not exist, and StripeUnavailable (see the class).
        """
        return await self._call(name, "get", path, params, options={}, max_attempts=MAX_ATTEMPTS)

    async def post(
        self, name: str, path: str, params: Json, *, key: str | None = None, max_attempts: int = MAX_ATTEMPTS
    ) -> Json:
        """Create or change an object.

        Args:
            name: of the call, for metrics.
            path: ``/v1/…``.
            params: body parameters.
            key: idempotency key, under which a repeat by any process gets the first response; None for a random one.
            max_attempts: bound on attempts.

        Raises:
            KeySpent: the key can no longer create an object; look whether it exists.
            StripeRefused: Stripe rejected the request.
            StripeUnavailable: see the class.
        """
        return await self._call(name, "post", path, params, options=_idempotency(key), max_attempts=max_attempts)

    async def delete(self, name: str, path: str, params: Json, *, key: str | None = None) -> Json:
        """Delete or cancel an object; arguments and errors as for ``post``."""
        return await self._call(name, "delete", path, params, options=_idempotency(key), max_attempts=MAX_ATTEMPTS)

    async def pages(self, name: str, path: str, params: Json) -> AsyncIterator[Json]:
        """All entries of a list, page after page; arguments and errors as for ``get``."""
        cursor: Json = {}
        for _ in range(MAX_PAGES):
            page = await self.get(name, path, {**params, "limit": PAGE_SIZE, **cursor})
            for entry in page["data"]:
                yield entry
            if not page["has_more"]:
                return
            cursor = {"starting_after": page["data"][-1]["id"]}

    async def _call(self, name: str, method: str, path: str, params: Json, *, options: Json, max_attempts: int) -> Json:
        loop = asyncio.get_running_loop()
        context, family = self._context(), self.breaker.of(path)
        breaker = family.breaker
        deadline = min(self._deadline, context.deadline, loop.time() + self.timeouts.call)
        for attempt in range(1, max_attempts + 1):
            began = loop.time()
            try:
                async with self._admission(family, context, deadline):
                    began = loop.time()
                    with http_request(method.upper(), self._base + path, attempt=attempt) as span:
                        response = await self._send(
                            span, method, path, {**params, **options}, min(deadline, began + self.timeouts.attempt)
                        )
            except (stripe.StripeError, aiohttp.ClientError, TimeoutError, OSError) as exception:
                failure = _classify(name, exception)
                _SECONDS.labels(family.name, name, type(exception).__name__).observe(loop.time() - began)
                if failure.outage:
                    breaker.failed(type(exception).__name__)
                else:
                    breaker.succeeded()
                pause = self.timeouts.retry_pause * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 -- jitter
                if not failure.retry:
                    raise failure.error from exception
                log.warning("stripe call failed", call=name, error=type(exception).__name__, attempt=attempt)
                if attempt == max_attempts or loop.time() + pause >= deadline:
                    raise failure.error from exception
                await asyncio.sleep(pause)
            else:
                _SECONDS.labels(family.name, name, "ok").observe(loop.time() - began)
                breaker.succeeded()
                return dict(response.data)
        raise AssertionError("the last attempt returns or raises")

    async def _send(self, span: Span, method: str, path: str, arguments: Json, deadline: float) -> Any:
        """Make one attempt, and record the status of the response."""
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._client.raw_request_async(method, path, **arguments)
        except stripe.StripeError as refused:
            if refused.http_status is not None:
                span.responded(refused.http_status)
            raise
        span.responded(response.code)
        return response

    def _context(self) -> CallContext:
        """The context of a call: that of the message, or one for a call outside of a message."""
        context = call_context()
        if self._priority is not None:
            return CallContext(self._priority)
        if context is not None:
            return context
        return CallContext(Priority.BACKGROUND if self._deadline == float("inf") else Priority.QUERY)

    @asynccontextmanager
    async def _admission(self, family: Family, context: CallContext, deadline: float) -> AsyncIterator[None]:
        """Wait for the rate limit and for a free call of the family, and hold the call during the block.

        Raises:
            StripeBusy: the command is to be postponed.
            StripeUnavailable: the circuit is open, or the deadline is too near.
        """
        # A call that will not be made must not use up the rate limit.
        self._check_breaker(family)
        postponable = context.postponable and not context.admitted
        if postponable:
            wait = max(family.background_wait, self._queue.expected_wait(context.priority))
            if wait > ADMISSION_SECONDS:
                raise self._busy(family, context)
        context.admitted = True
        if not await self._queue.wait(context.priority, deadline=deadline):
            _REJECTED.labels(family.name, "rate").inc()
            raise StripeUnavailable
        longest = asyncio.get_running_loop().time() + ADMISSION_SECONDS if postponable else deadline
        try:
            # Last, so that no call holds a slot while it waits for the rate limit.
            async with family.slot(background=context.priority >= Priority.BACKGROUND, until=min(deadline, longest)):
                if family.breaker.before_call() is not None:
                    _REJECTED.labels(family.name, "breaker").inc()
                    raise StripeUnavailable
                yield
        except NoSlot:
            if postponable:
                raise self._busy(family, context) from None
            _REJECTED.labels(family.name, "rate").inc()
            raise StripeUnavailable from None

    def _busy(self, family: Family, context: CallContext) -> StripeBusy:
        _REJECTED.labels(family.name, "busy").inc()
        return StripeBusy(family.name, self._queue.postponement(context.priority))

    def _check_breaker(self, family: Family) -> None:
        if family.breaker.rejection is not None:
            _REJECTED.labels(family.name, "breaker").inc()
            raise StripeUnavailable


def _idempotency(key: str | None) -> Json:
    # All attempts of a call share one key, even if the caller needs none.
    return {"idempotency_key": key or f"nest:{random.getrandbits(128):032x}"}


def _classify(name: str, failure: Exception) -> _Failure:
    """Classify a failed attempt (https://docs.stripe.com/api/errors, https://docs.stripe.com/api/idempotent_requests)."""
    if not isinstance(failure, stripe.StripeError) or failure.http_status is None:
        return _Failure(StripeUnavailable(), retry=True, outage=True)
    status, headers = failure.http_status, failure.headers or {}
    if isinstance(failure, stripe.IdempotencyError) and status != HTTP_CONFLICT:
        return _Failure(KeySpent(), retry=False, outage=False)
    if status >= HTTP_SERVER_ERROR and headers.get("idempotent-replayed") == "true":
        # Stripe stores this response under the key for a day: a retry would get the same one.
        return _Failure(KeySpent(), retry=False, outage=False)
    if status in (HTTP_CONFLICT, HTTP_FAILED_DEPENDENCY, HTTP_TOO_MANY):
        # The library does not retry 429. Stripe sends a header if it knows that a retry is useless.
        return _Failure(StripeUnavailable(), retry=headers.get("stripe-should-retry") != "false", outage=False)
    if status >= HTTP_SERVER_ERROR or status < 400:  # noqa: PLR2004 -- a response that is not JSON
        return _Failure(StripeUnavailable(), retry=headers.get("stripe-should-retry") != "false", outage=True)
    if isinstance(failure, stripe.AuthenticationError | stripe.PermissionError):
        # An operator must correct this. Until then everything waits, as in an outage.
        _report_refusal(name, f"http_{status}", request=str(failure.request_id or ""))
        error = RightMissing() if isinstance(failure, stripe.PermissionError) else StripeUnavailable()
        return _Failure(error, retry=False, outage=False)
    if headers.get("stripe-should-retry") == "true":
        return _Failure(StripeUnavailable(), retry=True, outage=False)
    refused = StripeRefused(
        str(failure.code or ""),
        str(getattr(failure, "param", None) or ""),
        call=name,
        request_id=str(failure.request_id or ""),
    )
    return _Failure(refused, retry=False, outage=False)


def _report_refusal(call: str, code: str, **fields: str) -> None:
    _REFUSALS.labels(call, code).inc()
    log.error("stripe refuses a call", call=call, code=code, **fields)


@asynccontextmanager
async def open_calls(
    *, api_key: SecretStr, api_base: str | None, rate: float, timeouts: Timeouts
) -> AsyncIterator[Calls]:
    """Calls to a Stripe account, in the mode of its API key; the connections are closed when the block ends.

    ``api_base``, if given, replaces Stripe's base URL. ``rate`` is in calls per second of this process.
    """
    # aiohttp takes 0.25 ms of CPU a call at 32 callers; httpx, the library's default, takes 2 ms. Its default of 100
    # connections would let the hanging calls of one family keep others waiting.
    connector = aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cafile=stripe.ca_bundle_path))
    transport = stripe.AIOHTTPClient(timeout=None, connector=connector)
    client = stripe.StripeClient(
        api_key.get_secret_value(),
        http_client=transport,
        stripe_version=API_VERSION,
        base_addresses={} if api_base is None else {"api": api_base},
        max_network_retries=0,
    )
    try:
        yield Calls(client, base=api_base or stripe.DEFAULT_API_BASE, rate=rate, timeouts=timeouts)
    finally:
        await transport.close_async()  # type: ignore[no-untyped-call]  # the library lacks the annotation
