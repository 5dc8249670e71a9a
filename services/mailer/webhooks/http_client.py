"""HTTP client of webhooks: one request per attempt, to public addresses, without redirects, proxies and cookies."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from prometheus_client import Counter as Metric
from prometheus_client import Histogram
from yarl import URL

from services.mailer.webhooks.destinations import AddressRefused, Destinations
from services.mailer.webhooks.models import Attempt
from services.mailer.webhooks.signatures import headers_of
from shared.messages.mailer.errors import WebhookUrlRefused
from shared.messages.mailer.webhooks import ErrorClass
from shared.tracing import http_request

USER_AGENT: Final = "Nest-Webhooks/1.0"
MAX_CONCURRENT_REQUESTS: Final = 32
"""Requests of this process at the same time. Each occupies one of its messages in flight, which mails need too."""
MAX_CONCURRENT_PER_ENDPOINT: Final = 8
"""An endpoint that hangs occupies no more of them."""
CONNECT_SECONDS: Final = 5.0
MAX_RESPONSE_BYTES: Final = 16_384
"""Bytes of a response that are read and discarded, so that its connection can be used again."""
FAILURES_BEFORE_PAUSE: Final = 5
"""Failures of an endpoint in a row, over all users, after which it gets no requests for a while."""
PAUSE_SECONDS: Final = 30.0
ATTEMPTS: Final = Metric(
    "nest_webhook_attempts",
    "Attempts to deliver webhooks, by outcome: delivered, or the kind of the error.",
    ["outcome"],
)
SECONDS: Final = Histogram(
    "nest_webhook_seconds",
    "Duration of requests to webhook endpoints.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)
_SUCCESS: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)


@dataclass(frozen=True, slots=True)
class Sent:
    """An attempt, and the pause that the receiver requests, if it does."""

    attempt: Attempt
    retry_after: timedelta | None = None


class WebhookClient:
    """Client of all endpoints. Must be created in a running event loop.

    Args:
        destinations: URLs and addresses that may be called.
        timeout: seconds for one request.
        resolver: resolves names; aiohttp's by default.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        destinations: Destinations,
        *,
        timeout: float,
        resolver: AbstractResolver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.destinations = destinations
        self._clock = clock
        self._in_flight: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._paused_until: dict[str, float] = {}
        self._http = aiohttp.ClientSession(
            headers={"user-agent": USER_AGENT},
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout)),
            connector=aiohttp.TCPConnector(
                limit=MAX_CONCURRENT_REQUESTS, resolver=resolver, socket_factory=destinations.open_socket
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    def host_of(self, url: str) -> str:
        """Return the host of an endpoint's URL, for messages: its path may contain a secret of the receiver."""
        return URL(url).host or ""

    def busy(self, endpoint_id: str) -> bool:
        """Return True if no request to an endpoint can be sent now, since too many are in flight."""
        return (
            self._in_flight[endpoint_id] >= MAX_CONCURRENT_PER_ENDPOINT
            or self._in_flight.total() >= MAX_CONCURRENT_REQUESTS
        )

    async def post(
        self, endpoint_id: str, url: str, event_id: str, body: bytes, secrets: Sequence[str], *, at: datetime
    ) -> Sent:
        """Post an event once and return what came of it; only 2xx is a success.

        While an endpoint is paused, after several failures in a row, the attempt fails without a request.
        """
        if self._clock() < self._paused_until.get(endpoint_id, 0):
            return _counted(Sent(Attempt(at=at, duration_ms=0, error="paused")))
        began = time.perf_counter()
        retry_after: timedelta | None = None
        status: int | None = None
        error: ErrorClass | None
        with self._counted_in_flight(endpoint_id):
            try:
                status, retry_after = await self._send(url, headers_of(event_id, body, secrets, at=at), body)
                error = None if status in _SUCCESS else "redirect" if status in _REDIRECTS else "status"
            except (aiohttp.ClientError, OSError, ValueError, WebhookUrlRefused) as failure:
                error = _class_of(failure)
        seconds = time.perf_counter() - began
        SECONDS.observe(seconds)
        self._count_failure(endpoint_id, failed=error is not None)
        attempt = Attempt(at=at, duration_ms=round(seconds * 1000), status=status, error=error)
        return _counted(Sent(attempt, retry_after))

    async def _send(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int, timedelta | None]:
        target = self.destinations.check(url)
        # Without the path, which may contain a secret of the receiver.
        with http_request("POST", str(target.origin())) as span:
            async with self._http.post(target, data=body, headers=headers, allow_redirects=False) as response:
                span.responded(response.status)
                await response.content.read(MAX_RESPONSE_BYTES)
                return response.status, _retry_after(response.headers.get("retry-after"))

    @contextmanager
    def _counted_in_flight(self, endpoint_id: str) -> Iterator[None]:
        self._in_flight[endpoint_id] += 1
        try:
            yield
        finally:
            self._in_flight[endpoint_id] -= 1
            if not self._in_flight[endpoint_id]:
                del self._in_flight[endpoint_id]

    def _count_failure(self, endpoint_id: str, *, failed: bool) -> None:
        if not failed:
            self._failures.pop(endpoint_id, None)
            self._paused_until.pop(endpoint_id, None)
            return
        self._failures[endpoint_id] += 1
        if self._failures[endpoint_id] >= FAILURES_BEFORE_PAUSE:
            self._paused_until[endpoint_id] = self._clock() + PAUSE_SECONDS


def _counted(sent: Sent) -> Sent:
    ATTEMPTS.labels(sent.attempt.error or "delivered").inc()
    return sent


def _class_of(failure: Exception) -> ErrorClass:
    cause = getattr(failure, "os_error", failure)
    # aiohttp joins the failures of several addresses, if they differ, to one text.
    if isinstance(cause, AddressRefused | WebhookUrlRefused) or str(AddressRefused()) in str(cause):
        return "address_refused"
    if isinstance(failure, TimeoutError):
        return "timeout"
    if isinstance(failure, aiohttp.ClientConnectorDNSError):
        return "dns"
    if isinstance(failure, aiohttp.ClientSSLError):
        return "tls"
    if isinstance(failure, aiohttp.ClientConnectionError | OSError):
        return "connection"
    return "invalid_response"


def _retry_after(value: str | None) -> timedelta | None:
    """Return the pause in a ``Retry-After`` header, seconds or a date (RFC 9110 section 10.2.3); None if unusable."""
    if value is None:
        return None
    if value.isascii() and value.isdecimal():
        return timedelta(seconds=min(int(value[:9]), 10**8))
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    pause = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)
    return pause if pause > timedelta(0) else None
