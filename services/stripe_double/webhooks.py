"""How do events reach their receivers? Signed deliveries, tried again until they are accepted."""

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from services.stripe_double import bodies, endpoints
from services.stripe_double.account import Account, Json
from services.stripe_double.ids import token
from services.stripe_double.signing import signature

OWN_ENDPOINT = "own"
CONCURRENCY = 16
"""How many deliveries are under way at once; Stripe keeps no order either."""
TIMEOUT = 10.0
"""Seconds that a receiver has to answer."""
ATTEMPTS_KEPT = 10_000


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try to deliver an event."""

    event: str
    type: str
    url: str
    number: int
    """1 for the first try."""
    status: int | None
    """What the receiver answered; None when there was no answer."""
    error: str | None
    at: float
    """Real Unix seconds."""


@dataclass(frozen=True, kw_only=True)
class DeliveryFaults:
    """What happens to each delivery planned while it is switched on; nothing by default."""

    shuffle_seconds: float = 0.0
    """Seconds over which deliveries are scattered: any two planned closer together may change places."""
    copies: int = 1
    """How many copies of each are sent."""
    parallel: bool = False
    """Whether the copies are sent at the same moment instead of one after the other."""
    delay_seconds: float = 0.0
    """Seconds that each waits."""
    loss_rate: float = 0.0
    """The share that is never sent, 0 to 1; `GET /v1/events?delivery_success=false` still lists them."""
    seed: int = 0
    _random: random.Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_random", random.Random(self.seed))  # noqa: S311 - dice, not secrets

    def wait(self) -> float:
        """Returns the seconds that the next delivery waits."""
        return self.delay_seconds + (self._random.random() * self.shuffle_seconds if self.shuffle_seconds else 0.0)

    def loses(self) -> bool:
        """Tells whether the next delivery is lost."""
        return self.loss_rate > 0 and self._random.random() < self.loss_rate


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """When a failed delivery is tried again: at growing intervals, for three days.

    Stripe publishes the three days but not the intervals (docs.stripe.com/webhooks).
    """

    first: float = 5.0
    """Seconds to the first repetition."""
    factor: float = 4.0
    limit: float = 3 * 86400.0
    """Seconds after which it is given up."""
    scale: float = 1.0
    """What all of it is multiplied by; tests take 0.001."""

    def wait(self, attempts: int) -> float | None:
        """Returns the real seconds before the next try after so many; None to give up."""
        waited = sum(self.first * self.factor**number for number in range(attempts))
        if waited > self.limit:
            return None
        return float(self.first * self.factor ** (attempts - 1) * self.scale)


class Webhooks:
    """The deliveries of an account's events to the double's own endpoint and to those made by the API.

    Each is a row of the account until it is accepted, so that none is forgotten by a restart.

    Args:
        account: Whose events.
        url: The own endpoint; it may become known later, deliveries wait for it.
        secrets: The own endpoint's live signing secrets; without any it gets nothing.
        retries: When failed deliveries are tried again.
    """

    def __init__(self, account: Account, url: str | None, secrets: Sequence[str], retries: RetryPolicy) -> None:
        self.secrets = list(secrets)
        self.retries = retries
        self.faults = DeliveryFaults()
        self.thin = False
        """Send thin events, which say that something changed and not what, instead of snapshots."""
        self.attempts: deque[Attempt] = deque(maxlen=ATTEMPTS_KEPT)
        self._account = account
        self._url = url
        self._holding = False
        self._due: list[tuple[float, int, str]] = []
        self._pending: dict[str, None] = {}
        self._planned = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._parked: list[str] = []
        self._changed = asyncio.Event()
        self._progress = asyncio.Event()
        self._client: httpx.AsyncClient | None = None
        account.on_put.append(self._note)
        account.on_events.append(self._plan)
        account.on_commit.append(self._progress.set)

    @property
    def url(self) -> str | None:
        """The own endpoint's URL; setting it sends what waited for it."""
        return self._url

    @url.setter
    def url(self, url: str | None) -> None:
        self._url = url
        parked, self._parked = self._parked, []
        for identifier in parked:
            self._push(0.0, identifier)

    @property
    def waiting(self) -> list[Json]:
        """The deliveries still to be made: not accepted, held, lost or given up; oldest first."""
        return [row for identifier in self._pending if (row := self._account.find("_delivery", identifier))]

    def _in_state(self, state: str) -> list[Json]:
        return [row for row in reversed(self._account.all("_delivery")) if row["state"] == state]

    def hold(self) -> None:
        """From now on keeps deliveries back, until `release`."""
        self._holding = True

    @property
    def held(self) -> list[Json]:
        """The events kept back, in the order in which they happened."""
        return [self._account.get("event", row["event"]) for row in self._in_state("held")]

    async def release(self, order: Sequence[str] | None = None) -> None:
        """Delivers held events one after the other, each answered before the next is sent, and holds no more.

        Args:
            order: Ids of held events: in this order, repeated where repeated, and lost where left out.
                None delivers all as they happened. A delivery that is not accepted is tried again later.
        """
        self._holding = False
        rows: dict[str, list[Json]] = {}
        for row in self._in_state("held"):
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
        """Delivers an event once more, as an operator does in the Dashboard."""
        with self._account.change():
            self._plan([self._account.get("event", event)])

    async def drain(self, timeout: float = 10.0) -> None:
        """Waits until nothing is waiting to be delivered; what is lost or given up doesn't wait.

        Raises:
            TimeoutError: Something still waits after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while self._pending or self._under_way:
                self._progress.clear()
                await self._progress.wait()

    def payload(self, event: Json) -> bytes:
        """Returns the body of a delivery: the exact bytes that are signed."""
        return bodies.thin(event) if self.thin else bodies.snapshot(self._account, event)

    async def run(self) -> None:
        """Delivers what is due until it is cancelled."""
        while True:
            self._changed.clear()
            now = time.time()
            while self._due and self._due[0][0] <= now and len(self._under_way) < CONCURRENCY:
                self._start(heapq.heappop(self._due)[2])
            wait = self._due[0][0] - now if self._due and len(self._under_way) < CONCURRENCY else None
            try:
                await asyncio.wait_for(self._changed.wait(), wait if wait is None else max(0.0, wait))
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Ends deliveries under way; they are made again after the next start."""
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _plan(self, events: list[Json]) -> None:
        for event in events:
            for endpoint in self._receivers(event["type"]):
                lost = self.faults.loses()
                state = "lost" if lost else "held" if self._holding else "pending"
                self._account.put(
                    {
                        "object": "_delivery",
                        "id": token(20),
                        "event": event["id"],
                        "endpoint": endpoint,
                        "attempts": 0,
                        "copies": self.faults.copies,
                        "due": time.time() + self.faults.wait(),
                        "state": state,
                    }
                )

    def _receivers(self, kind: str) -> list[str]:
        made = [endpoint["id"] for endpoint in self._account.all("webhook_endpoint") if endpoints.wants(endpoint, kind)]
        return [OWN_ENDPOINT, *made] if self.secrets else made

    def _note(self, entry: Json) -> None:
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
        self._changed.set()

    def _start(self, identifier: str) -> None:
        row = self._account.find("_delivery", identifier)
        if row is None:  # the change that planned it was undone
            self._pending.pop(identifier, None)
            self._progress.set()
            return
        if row["state"] != "pending" or row["due"] > time.time():
            return
        if row["endpoint"] == OWN_ENDPOINT and self._url is None:
            self._parked.append(identifier)
            return
        task = asyncio.create_task(self._deliver(row))
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._changed.set()
        self._progress.set()
        if not task.cancelled():
            task.result()

    async def _deliver(self, row: Json) -> None:
        """Sends all copies of a delivery and keeps what became of it."""
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
        """Returns where a delivery goes and what signs it; None when its endpoint was deleted."""
        if row["endpoint"] == OWN_ENDPOINT:
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
        status, error = await self._post(url, body, headers)
        self.attempts.append(
            Attempt(
                event=event["id"],
                type=event["type"],
                url=url,
                number=row["attempts"] + 1,
                status=status,
                error=error,
                at=time.time(),
            )
        )
        # A redirect is no acceptance (docs.stripe.com/webhooks).
        return status is not None and 200 <= status < 300  # noqa: PLR2004 - the class of success

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int | None, str | None]:
        if self._client is None:
            # Made when it is first needed: loading the certificates costs more than the rest of the start.
            self._client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False)
        try:
            answer = await self._client.post(url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return None, f"{type(error).__name__}: {error}"
        return answer.status_code, None
