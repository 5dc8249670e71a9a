"""The Stripe double: one account with its API on a port, its clock and its webhook deliveries."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from services.stripe_double.account import Account, Database, Json, Settings, new_id
from services.stripe_double.api import Api, LoggedRequest
from services.stripe_double.clock import Clock
from services.stripe_double.control import PREFIX, Control
from services.stripe_double.faults import Faults
from services.stripe_double.idempotency import Idempotency
from services.stripe_double.lifecycle import Scheduler
from services.stripe_double.pages.site import Site
from services.stripe_double.rendering import render
from services.stripe_double.simulation import Simulation
from services.stripe_double.webhooks import DeliveryAttempt, RetryPolicy, Webhooks

TICK = 1.0
"""Seconds between checks for changes that are due in real time; Stripe's times are whole seconds too."""
CHANGES_BEFORE_YIELD = 20
"""Number of due changes that are made before other tasks of the event loop run."""


class StripeDouble:
    """One Stripe account in test mode over HTTP, with state, webhook deliveries and fault injection.

    It is an async context manager, and listens inside the block. Its attributes `clock`, `faults`, `webhooks`,
    `simulate`, `idempotency` and `account` control it from the same process.

    Args:
        api_key: The valid secret key, or several.
        webhook_url: URL of the configured webhook endpoint; may be set later (`double.webhooks.url = …`).
        webhook_secrets: Active signing secrets of that endpoint; without any it receives nothing.
        folder: Where the account is stored, durable against kill -9; None keeps it in memory.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        settings: Settings of the account, for example the retry days of a renewal.
        retries: Retry times of failed deliveries.
        start: Start time of the clock; by default real time, or the time of the stored account.
        seed: Seed of the random numbers behind the probability of faults.
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
        self._has_start = start is not None
        self._settings = settings or Settings()
        self._host = host
        self._port = port
        self._api_keys = (api_key,) if isinstance(api_key, str) else tuple(api_key)
        self._webhook = (webhook_url, tuple(webhook_secrets), retries or RetryPolicy())
        self._tasks: list[asyncio.Task[None]] = []
        self._database: Database | None = None

    async def __aenter__(self) -> Self:
        """Load the account and listen.

        Raises:
            OSError: The port is in use.
            sqlite3.OperationalError: The folder can't be written, or another double uses it.
        """
        self._database = Database(self._folder) if self._folder else None
        self.account = Account(self.clock, self._database, self._settings)
        self.idempotency = Idempotency(self.account)
        self.webhooks = Webhooks(self.account, *self._webhook)
        self._scheduler = Scheduler(self.account)
        self.account.load()
        self._create_or_resume_account()
        self.clock.on_advance(self._process_until)
        self.simulate = Simulation(self.account)
        self._api = Api(self.account, self.idempotency, self.faults, self._api_keys)
        self._control = Control(self, self._api_keys)
        self._site = Site(self.account)
        self._listener = Listener(self._route, self._host, self._port)
        await self._listener.open()
        self.account.pages_url = self.url
        self._tasks = [asyncio.create_task(self.webhooks.run()), asyncio.create_task(self._process_in_real_time())]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.webhooks.close()
        if self._database is not None:
            self._database.close()

    @property
    def url(self) -> str:
        """The base address for `StripeClient(..., base_addresses={"api": double.url})`."""
        return f"http://{self._host}:{self._listener.port}"

    @property
    def log(self) -> list[LoggedRequest]:
        """The last 10,000 requests to the API, oldest first."""
        return list(self._api.log)

    @property
    def deliveries(self) -> list[DeliveryAttempt]:
        """The last 10,000 delivery attempts, oldest first."""
        return list(self.webhooks.attempts)

    def objects(self, kind: str) -> list[Json]:
        """Return all objects of a kind as the API returns them, oldest first, with deleted customers."""
        return [render(self.account, entry) for entry in reversed(self.account.all(kind))]

    def object(self, kind: str, identifier: str) -> Json:
        """Return one object as the API returns it.

        Raises:
            StripeApiError: It does not exist.
        """
        return render(self.account, self.account.get(kind, identifier))

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Refuse connections inside the block."""
        await self._listener.refuse()
        try:
            yield
        finally:
            await self._listener.open()

    async def _route(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith(PREFIX):
            await self._control(scope, receive, send)
        elif Site.has(scope["path"]):
            await self._site(scope, receive, send)
        else:
            await self._api(scope, receive, send)

    def _create_or_resume_account(self) -> None:
        """Create the account object; of a stored account resume the clock, unless a start time was given."""
        stored = self.account.all("account")
        if not stored:
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
        elif not self._has_start:
            self.clock.offset = stored[0]["_clock_offset"]

    async def _process_until(self, until: int) -> None:
        """Make all changes that are due by `until`, each at its time; requests in between see the moving clock."""
        changes = 0
        while (upcoming := self._scheduler.next()) is not None and upcoming[0] <= until:
            self.clock.move_to(upcoming[0])
            self._scheduler.run_next(until)
            changes += 1
            if changes % CHANGES_BEFORE_YIELD == 0:
                await asyncio.sleep(0)
        self.clock.move_to(until)
        with self.account.change():
            self.account.update(self.account.all("account")[0], _clock_offset=self.clock.offset)

    async def _process_in_real_time(self) -> None:
        while True:
            if self._scheduler.run_next(self.clock.now()):
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(TICK)


class _Connection(HttpToolsProtocol):
    """A connection whose transport the application can reach, to reset it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class Listener:
    """uvicorn's HTTP protocol on a listening socket in the running event loop.

    Unlike `uvicorn.Server` it installs no signal handlers, and it can close and reopen its port.

    Args:
        application: The ASGI application.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one, which is kept when the port is closed and reopened.
    """

    def __init__(self, application: Any, host: str, port: int) -> None:
        self._config = Config(
            application,
            host=host,
            http=_Connection,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
        )
        self._host = host
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self.port = port

    async def open(self) -> None:
        """Accept connections.

        Raises:
            OSError: The port is in use.
        """
        if not self._config.loaded:
            self._config.load()
        bound = self._reserved or self._bind()
        self._reserved = None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(config=self._config, server_state=self._state, app_state={}), sock=bound
        )

    async def refuse(self) -> None:
        """Abort all connections and refuse new ones until `open`, without losing the port."""
        self._stop_listening()
        for connection in list(self._state.connections):
            connection.transport.abort()
        # A socket that is bound but does not listen: the kernel refuses connections, and nobody else gets the port.
        self._reserved = self._bind()

    async def close(self) -> None:
        """Stop listening; give requests in progress 0.2 seconds, then cancel them."""
        self._stop_listening()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = list(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=0.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reserved is not None:
            self._reserved.close()

    def _bind(self) -> socket.socket:
        # asyncio sets TCP_NODELAY only if the protocol is given explicitly; without it responses take 40 ms.
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind((self._host, self.port))
        self.port = bound.getsockname()[1]
        return bound

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
