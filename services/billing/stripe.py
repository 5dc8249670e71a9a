"""What does Stripe say, and what is ordered of it? The only file that calls Stripe."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote

import aiohttp
import stripe
from prometheus_client import Histogram

from services.billing.errors import KeySpent, StripeRefused, StripeUnavailable
from services.billing.models.stripe_objects import StripeCustomer, StripeSubscription
from services.billing.translation import DUPLICATE_COMMENT, Json, customer_of, subscription_of
from shared.breaker import Breaker
from shared.telemetry import log

API_VERSION: Final = "2026-10-28.endive"
"""What the objects look like that this file reads; the one that the library in the lock was generated for."""
TRIES: Final = 3
PAGE: Final = 100
PAGES: Final = 50
"""No list of one payer's has 5,000 entries; a bound keeps a wrong answer from being read for ever."""
TRIAL_DAYS: Final = 14
COUPON_COMMENT: Final = "Nest: a coupon is required"
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
        call: for a call with its repeats.
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


class Stripe:
    """One Stripe account.

    Every call ends within its time, is repeated under its key where that can help, and raises StripeUnavailable
    when Stripe can't be reached, is too slow, limits us, or refuses our key (which an operator mends).

    Args:
        client: the library's client; it must not retry by itself.
        portal_return_url: where the customer portal leads back to.
        breaker: refuses calls while Stripe is down.
        patience: how long a call may take.
    """

    def __init__(
        self, client: stripe.StripeClient, *, portal_return_url: str, breaker: Breaker, patience: Patience
    ) -> None:
        self.patience = patience
        self._client = client
        self._portal_return_url = portal_return_url
        self._breaker = breaker
        self._until = float("inf")

    def within(self, seconds: float) -> Self:
        """The same account, whose calls all end within some seconds from now."""
        bounded = copy.copy(self)
        bounded._until = asyncio.get_running_loop().time() + seconds  # noqa: SLF001 -- its own class
        return bounded

    async def subscription(self, subscription_id: str) -> StripeSubscription | None:
        """A subscription as it is now, with all its items; None if this account, in this mode, never had it.

        Raises:
            StripeUnavailable: as said above.
        """
        path = f"/v1/subscriptions/{quote(subscription_id, safe='')}"
        try:
            found = await self._call("subscription", "get", path, {"expand": ["customer", "discounts"]})
            items = await self._all_items(found)
        except StripeRefused as refused:
            if refused.code == "resource_missing":
                return None
            raise
        return subscription_of(found, items)

    async def customer(self, customer_id: str) -> StripeCustomer | None:
        """A customer as it is now, deleted ones too; None if this account never had it.

        Raises:
            StripeUnavailable: as said above.
        """
        try:
            return customer_of(await self._call("customer", "get", f"/v1/customers/{quote(customer_id, safe='')}", {}))
        except StripeRefused as refused:
            if refused.code == "resource_missing":
                return None
            raise

    async def subscription_ids(self, customer_id: str, *, trial_id: str | None = None) -> list[str]:
        """The ids of all subscriptions of a customer, ended ones too, newest first.

        Args:
            customer_id: whose.
            trial_id: only those made for this trial.

        Raises:
            StripeUnavailable: as said above.
        """
        # Without a status Stripe leaves out the ended ones.
        wanted = {"customer": customer_id, "status": "all"}
        return [
            found["id"]
            async for found in self._pages("subscriptions", "/v1/subscriptions", wanted)
            if trial_id is None or found["metadata"].get("trial_id") == trial_id
        ]

    async def trial_customer_id(self, email: str, trial_id: str) -> str | None:
        """The customer that was made for a trial, if it was. Looks in a list: searching lags by up to a minute.

        Raises:
            StripeUnavailable: as said above.
        """
        async for found in self._pages("customers", "/v1/customers", {"email": email}):
            if found["metadata"].get("trial_id") == trial_id:
                return str(found["id"])
        return None

    async def create_customer(self, *, email: str, user_id: str, trial_id: str, key: str) -> str:
        """Make the customer of a user for a trial; returns its id.

        Raises:
            KeySpent: the key won't make one; look whether there is one.
            StripeRefused: the address, above all.
            StripeUnavailable: as said above.
        """
        params = {"email": email, "metadata": {"user_id": user_id, "trial_id": trial_id}}
        return str((await self._call("create_customer", "post", "/v1/customers", params, key=key))["id"])

    async def create_trial(self, *, customer_id: str, price: str, user_id: str, trial_id: str, key: str) -> str:
        """Make a subscription that begins with 14 days for free; returns its id.

        Raises:
            KeySpent: the key won't make one; look whether there is one.
            StripeRefused, StripeUnavailable: as said above.
        """
        params = {
            "customer": customer_id,
            "items": [{"price": price}],
            "trial_period_days": TRIAL_DAYS,
            # Nobody gave a card. By default Stripe would make an invoice then that nobody pays, and try to collect it
            # for weeks; ended, the person can subscribe anew.
            "trial_settings": {"end_behavior": {"missing_payment_method": "cancel"}},
            "metadata": {"user_id": user_id, "trial_id": trial_id},
        }
        return str((await self._call("create_trial", "post", "/v1/subscriptions", params, key=key))["id"])

    async def cancel_duplicate(self, subscription_id: str, *, kept_subscription_id: str, key: str) -> None:
        """End a subscription now, prorated and invoiced now, and write on it which one of ours was kept.

        One that has ended already stays as it is.

        Raises:
            StripeRefused, StripeUnavailable: as said above.
        """
        await self._cancel(subscription_id, f"{DUPLICATE_COMMENT}{kept_subscription_id}", key)

    async def cancel_without_coupon(self, subscription_id: str, *, key: str) -> None:
        """End a subscription that lacks the coupon every one needs here, as ``cancel_duplicate`` does.

        Raises:
            StripeRefused, StripeUnavailable: as said above.
        """
        await self._cancel(subscription_id, COUPON_COMMENT, key)

    async def portal_url(self, customer_id: str) -> str | None:
        """A short-lived link to a customer's portal, for that person alone: never to be stored, mailed or logged.

        Returns:
            None when Stripe doesn't give one in time, for whatever reason.
        """
        params = {"customer": customer_id, "return_url": self._portal_return_url}
        try:
            session = await self.within(self.patience.portal)._call(  # noqa: SLF001 -- its own class
                "portal", "post", "/v1/billing_portal/sessions", params, tries=2
            )
        except StripeUnavailable:
            return None
        except (StripeRefused, KeySpent) as failure:
            log.warning("stripe gives no portal link", customer=customer_id, error=str(failure))
            return None
        return str(session["url"])

    async def _cancel(self, subscription_id: str, comment: str, key: str) -> None:
        params = {"prorate": True, "invoice_now": True, "cancellation_details": {"comment": comment}}
        path = f"/v1/subscriptions/{quote(subscription_id, safe='')}"
        try:
            await self._call("cancel", "delete", path, params, key=key)
        except StripeRefused as refused:
            # What Stripe says of a subscription that is over; whoever asked reads it again anyway.
            if refused.code != "resource_missing":
                raise

    async def _all_items(self, found: Json) -> list[Json]:
        """The items of a subscription; Stripe cuts a list inside of another object at ten."""
        nested = found["items"]
        if not nested["has_more"]:
            return list(nested["data"])
        wanted = {"subscription": found["id"]}
        return [item async for item in self._pages("items", "/v1/subscription_items", wanted)]

    async def _pages(self, name: str, path: str, params: Json) -> AsyncIterator[Json]:
        cursor: Json = {}
        for _ in range(PAGES):
            page = await self._call(name, "get", path, {**params, "limit": PAGE, **cursor})
            for found in page["data"]:
                yield found
            if not page["has_more"]:
                return
            cursor = {"starting_after": page["data"][-1]["id"]}

    async def _call(
        self, name: str, method: str, path: str, params: Json, *, key: str | None = None, tries: int = TRIES
    ) -> Json:
        loop = asyncio.get_running_loop()
        until = min(self._until, loop.time() + self.patience.call)
        # One key for all attempts of a call, even where nobody needs it later.
        options: Json = {"idempotency_key": key or f"nest:{random.getrandbits(128):032x}"} if method != "get" else {}
        for attempt in range(1, tries + 1):
            if self._breaker.admit() is not None:
                raise StripeUnavailable
            began = loop.time()
            try:
                async with asyncio.timeout_at(min(until, began + self.patience.attempt)):
                    answer = await self._client.raw_request_async(method, path, **params, **options)
            except (stripe.StripeError, aiohttp.ClientError, TimeoutError, OSError) as failure:
                verdict = _judge(failure)
                _SECONDS.labels(name, type(failure).__name__).observe(loop.time() - began)
                if verdict.down:
                    self._breaker.failed(type(failure).__name__)
                else:
                    self._breaker.succeeded()
                pause = self.patience.pause * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 -- jitter
                if not verdict.again:
                    raise verdict.error from failure
                log.warning("stripe call failed", call=name, error=type(failure).__name__, attempt=attempt)
                if attempt == tries or loop.time() + pause >= until:
                    raise verdict.error from failure
                await asyncio.sleep(pause)
            else:
                _SECONDS.labels(name, "ok").observe(loop.time() - began)
                self._breaker.succeeded()
                return dict(answer.data)
        raise AssertionError("the last attempt returns or raises")


def _judge(failure: Exception) -> _Verdict:
    """What a failed attempt means (https://docs.stripe.com/api/errors, /api/idempotent_requests)."""
    if not isinstance(failure, stripe.StripeError) or failure.http_status is None:
        return _Verdict(StripeUnavailable(), again=True, down=True)
    status = failure.http_status
    if isinstance(failure, stripe.IdempotencyError) and status != HTTP_CONFLICT:
        return _Verdict(KeySpent(), again=False, down=False)
    if status >= HTTP_SERVER_ERROR and (failure.headers or {}).get("idempotent-replayed") == "true":
        # The key keeps this answer for a day: asking again under it gives the same.
        return _Verdict(KeySpent(), again=False, down=False)
    if status in (HTTP_CONFLICT, HTTP_TOO_MANY):
        return _Verdict(StripeUnavailable(), again=True, down=False)
    if status >= HTTP_SERVER_ERROR or status < 400:  # noqa: PLR2004 -- an answer that is not JSON
        return _Verdict(StripeUnavailable(), again=True, down=True)
    if isinstance(failure, stripe.AuthenticationError | stripe.PermissionError):
        log.error("stripe refuses our key", status=status, request=failure.request_id)
        return _Verdict(StripeUnavailable(), again=False, down=False)
    refused = StripeRefused(str(failure.code or ""), str(getattr(failure, "param", None) or ""))
    return _Verdict(refused, again=False, down=False)


@asynccontextmanager
async def opened(
    *, api_key: str, api_base: str | None, portal_return_url: str, patience: Patience | None = None
) -> AsyncIterator[Stripe]:
    """A Stripe account, its connections closed at the end.

    Args:
        api_key: of the account, in one of its modes.
        api_base: where to call instead of Stripe; None for Stripe itself.
        portal_return_url: where the customer portal leads back to.
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
    breaker = Breaker("stripe", failures=5, first_pause=1.0)
    try:
        yield Stripe(client, portal_return_url=portal_return_url, breaker=breaker, patience=patience or Patience())
    finally:
        await transport.close_async()  # type: ignore[no-untyped-call]  # the library's own gap
