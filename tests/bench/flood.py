"""Open-loop load generator with little CPU: no task per request, so that it leaves the machine to what it measures."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import cast

TICK_SECONDS = 0.002


class Flood:
    """Sends requests at a fixed rate over many connections, whether or not earlier ones were answered.

    A latency counts from the time at which the request was due, so that a stall shows in all requests that were due
    meanwhile, also in those that wait for a connection.

    Args:
        requests: complete HTTP requests, sent in turn; each response must have ``content-length``.
        client_seconds: how long a client waits for its response.

    Attributes:
        latencies: in seconds, by HTTP status.
        timeouts: requests without response within ``client_seconds``.
        closed: connections that the server closed.
    """

    def __init__(self, host: str, port: int, requests: Sequence[bytes], *, client_seconds: float) -> None:
        self._host = host
        self._port = port
        self._requests = requests
        self._client_seconds = client_seconds
        self._free: list[_Client] = []
        self._clients: set[_Client] = set()
        self._due: deque[float] = deque()
        self._sent = 0
        self.latencies: dict[int, list[float]] = {}
        self.timeouts = 0
        self.closed = 0

    async def connect(self, connections: int) -> None:
        """Open connections."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: _Client(self), self._host, self._port)

    async def run(self, rate: float, seconds: float) -> float:
        """Send ``rate`` requests a second; return the seconds until the last response or client timeout."""
        began = time.perf_counter()
        count, number = int(rate * seconds), 0
        while number < count or self._due or len(self._free) < len(self._clients):
            now = time.perf_counter()
            while number < count and began + number / rate <= now:
                self._due.append(began + number / rate)
                number += 1
            while self._due and now - self._due[0] > self._client_seconds:
                self._due.popleft()
                self.timeouts += 1
            while self._due and self._free:
                self.send(self._free.pop())
            if number == count and now - began > seconds + self._client_seconds:
                self.timeouts += len(self._clients) - len(self._free)
                break
            await asyncio.sleep(TICK_SECONDS)
        return time.perf_counter() - began

    def close(self) -> None:
        """Disconnect."""
        clients, self._clients = self._clients, set()
        for client in clients:
            client.transport.abort()

    def send(self, client: _Client) -> None:
        """Send the next request that is due."""
        client.due = self._due.popleft()
        client.transport.write(self._requests[self._sent % len(self._requests)])
        self._sent += 1

    def opened(self, client: _Client) -> None:
        """Add a connection."""
        self._clients.add(client)
        self._free.append(client)

    def lost(self, client: _Client) -> None:
        """Count a connection that the server closed, and use it no more."""
        if client in self._clients:
            self._clients.discard(client)
            self.closed += 1
        if client in self._free:
            self._free.remove(client)

    def received(self, client: _Client, status: int) -> None:
        """Store the latency of a response and send the next request."""
        latency = time.perf_counter() - client.due
        if latency > self._client_seconds:
            self.timeouts += 1
        else:
            self.latencies.setdefault(status, []).append(latency)
        if self._due:
            self.send(client)
        else:
            self._free.append(client)


class _Client(asyncio.Protocol):
    def __init__(self, flood: Flood) -> None:
        self._flood = flood
        self._buffer = b""
        self.due = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface but not the class.
        self.transport = cast("asyncio.Transport", transport)
        self._flood.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- the interface
        self._flood.lost(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        at = self._buffer.find(b"content-length: ", 0, head_end)
        length = int(self._buffer[at + 16 : self._buffer.index(b"\r\n", at)]) if at >= 0 else 0
        if len(self._buffer) < head_end + 4 + length:
            return
        status = int(self._buffer[9:12])
        self._buffer = b""
        self._flood.received(self, status)
