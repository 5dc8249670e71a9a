"""Webhook endpoints and the delivery of events to them: signatures, retries, held deliveries."""

import asyncio
import heapq
import hmac
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import httpx

from services.stripe_double.account import API_VERSION, Account, Json, random_string
from services.stripe_double.errors import not_supported
from services.stripe_double.events import matches, snapshot_body, thin_body
from services.stripe_double.faults import DeliveryFaults
from services.stripe_double.params import Params
from services.stripe_double.rendering import list_page

CONFIGURED_ENDPOINT = "own"
"""Stored name of the endpoint that the double is started with, which is no object of the API."""
CONCURRENCY = 16
"""Maximum number of concurrent deliveries. Stripe keeps no order either."""
TIMEOUT = 10.0
"""Seconds that an endpoint has to respond."""
ATTEMPTS_KEPT = 10_000
FAULT = "injected fault: the endpoint did not respond"
"""Error of an attempt that a fault made fail."""


def create_webhook_endpoint(account: Account, params: Params) -> Json:
    """POST /v1/webhook_endpoints. Only this response contains the secret; the API version never changes."""
    if params.string("api_version") not in {None, API_VERSION}:
        raise not_supported("other API versions", "api_version")
    endpoint = account.new(
        "webhook_endpoint",
        api_version=API_VERSION,
        application=None,
        description=params.string("description"),
        enabled_events=params.strings("enabled_events"),
        metadata=params.metadata(),
        status="enabled",
        url=params.required("url"),
        _secret=f"whsec_{random_string(32)}",
    )
    params.reject_unknown()
    if not endpoint["enabled_events"]:
        raise params.missing("enabled_events")
    account.put(endpoint)
    return {**endpoint, "secret": endpoint["_secret"]}


def update_webhook_endpoint(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/webhook_endpoints/{id}: `url`, `enabled_events`, `disabled`, `description`, `metadata`."""
    endpoint = account.get("webhook_endpoint", identifier)
    changes: Json = {
        **params.sent_strings(("url", "description")),
        "metadata": params.metadata(endpoint["metadata"]),
    }
    if "enabled_events" in params:
        changes["enabled_events"] = params.strings("enabled_events")
    if "disabled" in params:
        changes["status"] = "disabled" if params.boolean("disabled") else "enabled"
    params.reject_unknown()
    return account.update(endpoint, **changes)


def delete_webhook_endpoint(account: Account, params: Params, identifier: str) -> Json:
    """DELETE /v1/webhook_endpoints/{id}; its pending deliveries are dropped."""
    params.reject_unknown()
    account.get("webhook_endpoint", identifier)
    account.remove("webhook_endpoint", identifier)
    for delivery in account.all("_delivery"):
        if delivery["endpoint"] == identifier:
            account.update(delivery, due=0.0)  # The next attempt finds no endpoint and drops the delivery.
    return {"id": identifier, "object": "webhook_endpoint", "deleted": True}


def list_webhook_endpoints(account: Account, params: Params) -> Json:
    """GET /v1/webhook_endpoints."""
    return list_page(account, params, "/v1/webhook_endpoints", account.all("webhook_endpoint"))


def signature(body: bytes, secrets: Sequence[str], *, at: int | None = None) -> str:
    """Return the `Stripe-Signature` header of a body: the time, one `v1` for each secret, and a `v0`.

    Receivers must ignore `v0`, which Stripe sends only in test mode (docs.stripe.com/webhooks).

    Args:
        body: The exact bytes of the delivery.
        secrets: All active signing secrets; two while one is being rolled.
        at: Unix time; by default the real time, because receivers compare it with their own clock.
    """
    moment = int(time.time()) if at is None else at
    signed = b"%d.%b" % (moment, body)
    signatures = [f"v1={hmac.new(secret.encode(), signed, sha256).hexdigest()}" for secret in secrets]
    return ",".join([f"t={moment}", *signatures, f"v0={sha256(signed).hexdigest()}"])


@dataclass(frozen=True, kw_only=True)
class DeliveryAttempt:
    """One attempt to deliver an event."""

    event: str
    type: str
    url: str
    number: int
    """1 for the first attempt."""
    status: int | None
    """Status of the response; None if there was none."""
    error: str | None
    at: float
    """Real Unix time in seconds."""
    seconds: float = 0.0
    """Time until the response, or the failure."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Retry times of failed deliveries: growing intervals for three days.

    Stripe publishes the three days, but not the intervals (docs.stripe.com/webhooks).
    """

    first: float = 5.0
    """Seconds before the first retry."""
    factor: float = 4.0
    """Ratio of each interval to the one before."""
    limit: float = 3 * 86400.0
    """Seconds after which there is no further retry."""
    scale: float = 1.0
    """Factor of all real waiting times; tests use 0.001."""

    def wait(self, attempts: int) -> float | None:
        """Return the real seconds between attempt number `attempts` and the next; None for no further retry."""
        waited = sum(self.first * self.factor**number for number in range(attempts))
        if waited > self.limit:
            return None
        return float(self.first * self.factor ** (attempts - 1) * self.scale)


class Webhooks:
    """Delivery of an account's events to the configured endpoint and to the endpoints made through the API.

    Each delivery is an object of the account until it is accepted, so it survives a restart. Its states:
    `pending`, `held` (until `release`), `lost` (a fault), `failed` (no further retry).

    Args:
        account: The account whose events are delivered.
        url: URL of the configured endpoint; its deliveries wait until the URL is set.
        secrets: Active signing secrets of the configured endpoint; without any it receives nothing.
        retries: Retry times of failed deliveries.
    """

    def __init__(self, account: Account, url: str | None, secrets: Sequence[str], retries: RetryPolicy) -> None:
        self.secrets = list(secrets)
        self.retries = retries
        self.faults = DeliveryFaults()
        self.enabled_events: Sequence[str] = ("*",)
        """Event types that the configured endpoint receives, as in `enabled_events` of an endpoint of the API."""
        self.thin = False
        """Deliver thin events, which contain the object's URL, instead of snapshot events."""
        self.api_version = API_VERSION
        """API version of the snapshot events; an older one reverses the changes of `versions.py`."""
        self.attempts: deque[DeliveryAttempt] = deque(maxlen=ATTEMPTS_KEPT)
        self._account = account
        self._url = url
        self._holding = False
        self._due: list[tuple[float, int, str]] = []
        self._pending: dict[str, None] = {}
        self._planned = 0
        self._in_flight: set[asyncio.Task[None]] = set()
        self._without_url: list[str] = []
        self._due_changed = asyncio.Event()
        self._progress = asyncio.Event()
        self._client: httpx.AsyncClient | None = None
        account.on_put.append(self._index)
        account.on_events.append(self._plan)
        account.on_commit.append(self._progress.set)

    @property
    def url(self) -> str | None:
        """URL of the configured endpoint; setting it starts the deliveries that waited for it."""
        return self._url

    @url.setter
    def url(self, url: str | None) -> None:
        self._url = url
        waiting, self._without_url = self._without_url, []
        for identifier in waiting:
            self._push(0.0, identifier)

    @property
    def pending(self) -> list[Json]:
        """The deliveries that are still to be made, oldest first; without those held, lost or failed."""
        return [row for identifier in self._pending if (row := self._account.find("_delivery", identifier))]

    @property
    def held_events(self) -> list[Json]:
        """The events with held deliveries, oldest first."""
        return [self._account.get("event", row["event"]) for row in self._held()]

    def _held(self) -> list[Json]:
        return [row for row in reversed(self._account.all("_delivery")) if row["state"] == "held"]

    def hold(self) -> None:
        """Hold all later deliveries until `release`."""
        self._holding = True

    async def release(self, order: Sequence[str] | None = None) -> None:
        """Stop holding, and make the held deliveries one after the other, each after the response to the last.

        Args:
            order: IDs of held events. They are delivered in this order, repeated where an ID is repeated, and
                lost where it is left out. None delivers all in the order of the events. A delivery that is
                not accepted is retried later.
        """
        self._holding = False
        rows: dict[str, list[Json]] = {}
        for row in self._held():
            rows.setdefault(row["event"], []).append(row)
        chosen = list(rows) if order is None else list(order)
        with self._account.change():
            for event, held in rows.items():
                for row in held if event not in chosen else []:
                    self._account.update(row, state="lost")
        for event in chosen:
            for row in rows[event]:
                current = self._account.find("_delivery", row["id"])
                if current is None or current["state"] == "pending":
                    await self._send_once(row)
                else:
                    await self._deliver(row)

    def resend(self, event: str) -> None:
        """Deliver an event once more, as the Dashboard's "Resend" does."""
        with self._account.change():
            self._plan([self._account.get("event", event)])

    async def drain(self, timeout: float = 10.0) -> None:
        """Wait until no delivery is pending; held, lost and failed ones do not count.

        Raises:
            TimeoutError: A delivery is still pending after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while self._pending or self._in_flight:
                self._progress.clear()
                await self._progress.wait()

    def payload(self, event: Json) -> bytes:
        """Return the body of a delivery: the exact bytes that are signed."""
        return thin_body(event) if self.thin else snapshot_body(self._account, event, self.api_version)

    async def run(self) -> None:
        """Make the deliveries that are due, until cancelled."""
        while True:
            self._due_changed.clear()
            now = time.time()
            while self._due and self._due[0][0] <= now and len(self._in_flight) < CONCURRENCY:
                self._start(heapq.heappop(self._due)[2])
            wait = self._due[0][0] - now if self._due and len(self._in_flight) < CONCURRENCY else None
            try:
                await asyncio.wait_for(self._due_changed.wait(), wait if wait is None else max(0.0, wait))
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Cancel the deliveries in flight; the next start repeats them."""
        for task in list(self._in_flight):
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _plan(self, events: list[Json]) -> None:
        for event in events:
            for endpoint in self._receivers(event["type"]):
                lost = self.faults.next_is_lost()
                state = "lost" if lost else "held" if self._holding else "pending"
                self._account.put(
                    {
                        "object": "_delivery",
                        "id": random_string(20),
                        "event": event["id"],
                        "endpoint": endpoint,
                        "attempts": 0,
                        "copies": self.faults.copies,
                        "due": time.time() + self.faults.next_delay(),
                        "state": state,
                    }
                )

    def _receivers(self, event_type: str) -> list[str]:
        created = [
            endpoint["id"]
            for endpoint in self._account.all("webhook_endpoint")
            if endpoint["status"] == "enabled" and _includes(endpoint["enabled_events"], event_type)
        ]
        return (
            [CONFIGURED_ENDPOINT, *created] if self.secrets and _includes(self.enabled_events, event_type) else created
        )

    def _index(self, entry: Json) -> None:
        if entry["object"] != "_delivery":
            return
        if entry["state"] == "pending":
            self._pending[entry["id"]] = None
            self._push(entry["due"], entry["id"])
        else:
            self._pending.pop(entry["id"], None)

    def _push(self, due: float, identifier: str) -> None:
        self._planned += 1
        heapq.heappush(self._due, (due, self._planned, identifier))
        self._due_changed.set()

    def _start(self, identifier: str) -> None:
        row = self._account.find("_delivery", identifier)
        if row is None:  # The change that planned it was rolled back.
            self._pending.pop(identifier, None)
            self._progress.set()
            return
        if row["state"] != "pending" or row["due"] > time.time():
            return
        if row["endpoint"] == CONFIGURED_ENDPOINT and self._url is None:
            self._without_url.append(identifier)
            return
        task = asyncio.create_task(self._deliver(row))
        self._in_flight.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._due_changed.set()
        self._progress.set()
        if not task.cancelled():
            task.result()

    async def _deliver(self, row: Json) -> None:
        """Send all copies of a delivery and store the result."""
        if self.faults.parallel:
            sent = await asyncio.gather(*(self._send_once(row) for _ in range(row["copies"])))
        else:
            sent = [await self._send_once(row) for _ in range(row["copies"])]
        with self._account.change():
            if all(sent) or self._address(row) is None:
                self._account.remove("_delivery", row["id"])
                self._pending.pop(row["id"], None)
                return
            attempts = row["attempts"] + 1
            wait = self.retries.wait(attempts)
            state = "failed" if wait is None else "pending"
            self._account.update(row, attempts=attempts, due=time.time() + (wait or 0.0), state=state)

    def _address(self, row: Json) -> tuple[str | None, list[str]] | None:
        """Return the URL and the signing secrets of a delivery's endpoint; None if the endpoint was deleted."""
        if row["endpoint"] == CONFIGURED_ENDPOINT:
            return self._url, self.secrets
        endpoint = self._account.find("webhook_endpoint", row["endpoint"])
        return (endpoint["url"], [endpoint["_secret"]]) if endpoint else None

    async def _send_once(self, row: Json) -> bool:
        url, secrets = self._address(row) or (None, [])
        if url is None:
            return False
        event = self._account.get("event", row["event"])
        body = self.payload(event)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(body, secrets),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        began = time.monotonic()
        failing = self.faults.next_fails()
        status, error = (None, FAULT) if failing else await self._post(url, body, headers)
        self.attempts.append(
            DeliveryAttempt(
                event=event["id"],
                type=event["type"],
                url=url,
                number=row["attempts"] + 1,
                status=status,
                error=error,
                at=time.time(),
                seconds=time.monotonic() - began,
            )
        )
        # Stripe treats a redirect as a failure (docs.stripe.com/webhooks).
        return status is not None and 200 <= status < 300  # noqa: PLR2004 - the success statuses

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int | None, str | None]:
        if self._client is None:
            # Created at the first delivery, because loading the certificates takes longer than the rest of the start.
            self._client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False)
        try:
            answer = await self._client.post(url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return None, f"{type(error).__name__}: {error}"
        return answer.status_code, None


def _includes(patterns: Sequence[str], event_type: str) -> bool:
    return any(matches(pattern, event_type) for pattern in patterns)
