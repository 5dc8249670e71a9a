"""Logins with a password, as an application's users perform them, and the bare cost of their hashes."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

import argon2
from argon2.profiles import RFC_9106_LOW_MEMORY

from services.auth.settings import AuthSettings
from tests.bench.http_client import Connection

PASSWORD: Final = "a long sentence is easy to keep"
BUSY: Final = (503, 504)
RETRY_SECONDS: Final = 1.0


class Passwords:
    """Users of one application, one for each connection.

    Args:
        url: of the gateway.
        connections: how many.

    Attributes:
        statuses: responses of `sign_in` so far, by status.
    """

    def __init__(self, url: str, connections: int) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self._connections = [Connection(address.hostname, address.port) for _ in range(connections)]
        self._sign_ins: list[bytes] = []
        self.statuses: Counter[int] = Counter()

    async def prepare(self) -> None:
        """Create the application and its users, once."""
        for connection in self._connections:
            await connection.connect()
        if self._sign_ins:
            return
        run = secrets.token_hex(4)
        owner = await self._created(
            "/appowner/create", firstname="Ada", lastname="L", email=f"o.{run}@example.com", password=PASSWORD
        )
        key = (await self._created("/applications/create", owneruuid=owner["uuid"], appname="Bench"))["apiKey"]
        for number in range(len(self._connections)):
            address = f"u{number}.{run}@example.com"
            await self._created("/users/signup", apikey=key, username=f"u{number}", email=address, password=PASSWORD)
            body = {"apikey": key, "email": address, "password": PASSWORD}
            self._sign_ins.append(json.dumps(body).encode())

    async def sign_in(self, number: int) -> None:
        """Log in as this connection's user; repeat while Nest is too busy."""
        while True:
            response = await self._connections[number].post("/users/signwithemail", self._sign_ins[number])
            self.statuses[response.status] += 1
            if response.status not in BUSY:
                break
            await asyncio.sleep(RETRY_SECONDS)
        assert response.status == 200, response.body

    async def _created(self, path: str, **body: str) -> dict[str, Any]:
        response = await self._connections[0].post(path, json.dumps(body).encode())
        assert response.status < 300, (path, response.status, response.body)
        parsed: dict[str, Any] = json.loads(response.body)
        return parsed

    def trace(self, number: int, traceparent: str) -> None:
        """As `tests.bench.app.App.trace`."""
        self._connections[number].every = f"traceparent: {traceparent}\r\n"

    def close(self) -> None:
        """Disconnect."""
        for connection in self._connections:
            connection.close()


class BareHashes:
    """Checks of passwords with auth's parameters and threads, and nothing else."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(AuthSettings.model_fields["password_threads"].default)
        self._hasher = argon2.PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._hash = self._hasher.hash(PASSWORD)

    async def check(self, _number: int) -> None:
        """Check one password."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._hasher.verify, self._hash, PASSWORD)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
