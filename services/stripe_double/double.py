"""The double itself: an account, its API on a port, its clock and its webhooks, started and stopped."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from services.stripe_double.account import Account, Json, Settings
from services.stripe_double.app import Api, Call
from services.stripe_double.clock import Clock
from services.stripe_double.control import Control
from services.stripe_double.faults import Faults
from services.stripe_double.idempotency import Idempotency
from services.stripe_double.ids import new_id
from services.stripe_double.journal import Journal
from services.stripe_double.lifecycle import Schedule
from services.stripe_double.presentation import present
from services.stripe_double.serving import Listener
from services.stripe_double.simulation import Simulation
from services.stripe_double.webhooks import Attempt, RetryPolicy, Webhooks

TICK = 1.0
"""Seconds between looks at what real time has made due; Stripe counts in whole seconds too."""
STEPS_AT_ONCE = 20


class StripeDouble:
    """One Stripe account in test mode, played over HTTP with its state, its webhooks and its faults.

    Use it as an async context manager: it listens inside the block.

    Args:
        api_key: The secret key, or several, that open it.
        webhook_url: Where events go; may be set later (`double.webhooks.url = …`).
        webhook_secrets: The live signing secrets of that endpoint; without any it gets nothing.
        folder: Where the account is kept, kill -9 included; None keeps it in memory.
        host: Where to listen.
        port: 0 for any free one.
        settings: What the account's owner has chosen, for example how often a renewal is tried.
        retries: When failed deliveries are tried again.
        start: The time at which the account's clock begins; real time by default, or, with a folder,
            where it was.
        seed: Of the faults' dice.
    """

    def __init__(
        self,
        *,
        api_key: str | Sequence[str] = "sk_test_double",
        webhook_url: str | None = None,
        webhook_secrets: Sequence[str] = (),
        folder: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: Settings | None = None,
        retries: RetryPolicy | None = None,
        start: datetime | None = None,
        seed: int = 0,
    ) -> None:
        self.clock = Clock(start=start)
        self.faults = Faults(seed)
        self._folder = folder
        self._fresh_start = start is not None
        self._settings = settings or Settings()
        self._host = host
        self._port = port
        self._api_keys = (api_key,) if isinstance(api_key, str) else tuple(api_key)
        self._webhook = (webhook_url, tuple(webhook_secrets), retries or RetryPolicy())
        self._tasks: list[asyncio.Task[None]] = []
        self._journal: Journal | None = None

    async def __aenter__(self) -> Self:
        """Opens the account and listens.

        Raises:
            OSError: The port is taken.
            sqlite3.OperationalError: The folder can't be written, or another double uses it.
        """
        self._journal = Journal(self._folder) if self._folder else None
        self.account = Account(self.clock, self._journal, self._settings)
        self.idempotency = Idempotency(self.account)
        self.webhooks = Webhooks(self.account, *self._webhook)
        self._schedule = Schedule(self.account)
        self.account.load()
        self._resume()
        self.clock.driven_by(self._pass_time)
        self.simulate = Simulation(self.account)
        self._api = Api(self.account, self.idempotency, self.faults, self._api_keys)
        self._control = Control(self, self._api_keys)
        self._listener = Listener(self._answer, self._host, self._port)
        await self._listener.open()
        self._tasks = [asyncio.create_task(self.webhooks.run()), asyncio.create_task(self._keep_time())]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.webhooks.close()
        if self._journal is not None:
            self._journal.close()

    @property
    def url(self) -> str:
        """The base address for `StripeClient(..., base_addresses={"api": double.url})`."""
        return f"http://{self._host}:{self._listener.port}"

    @property
    def log(self) -> list[Call]:
        """The calls made, oldest first, up to 10,000 of them."""
        return list(self._api.log)

    @property
    def deliveries(self) -> list[Attempt]:
        """The tries to deliver an event, oldest first, up to 10,000 of them."""
        return list(self.webhooks.attempts)

    def objects(self, kind: str) -> list[Json]:
        """Returns all objects of a kind as the API shows them, oldest first; deleted customers too."""
        return [present(self.account, entry) for entry in reversed(self.account.all(kind))]

    def object(self, kind: str, identifier: str) -> Json:
        """Returns one object as the API shows it.

        Raises:
            StripeApiError: It isn't there.
        """
        return present(self.account, self.account.get(kind, identifier))

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Inside the block the port refuses connections, as if Stripe were gone."""
        await self._listener.refuse()
        try:
            yield
        finally:
            await self._listener.open()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith("/_double/"):
            await self._control(scope, receive, send)
        else:
            await self._api(scope, receive, send)

    def _resume(self) -> None:
        """Goes on where a kept account stopped: its id, and its clock, unless one was given."""
        known = self.account.all("account")
        if not known:
            with self.account.change():
                self.account.put(
                    {
                        "object": "account",
                        "id": new_id("account"),
                        "country": self._settings.country,
                        "default_currency": self._settings.currency,
                        "type": "standard",
                        "_clock_offset": self.clock.offset,
                    }
                )
        elif not self._fresh_start:
            self.clock.offset = known[0]["_clock_offset"]

    async def _pass_time(self, until: int) -> None:
        """Does all that is due by then, each at its time; calls in between see the clock on its way."""
        steps = 0
        while (upcoming := self._schedule.next()) is not None and upcoming[0] <= until:
            self.clock.reach(upcoming[0])
            self._schedule.run(until)
            steps += 1
            if steps % STEPS_AT_ONCE == 0:
                await asyncio.sleep(0)
        self.clock.reach(until)
        with self.account.change():
            self.account.update(self.account.all("account")[0], _clock_offset=self.clock.offset)

    async def _keep_time(self) -> None:
        while True:
            if self._schedule.run(self.clock.now()):
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(TICK)
