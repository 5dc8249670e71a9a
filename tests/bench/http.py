"""A client that costs little, so that a benchmark measures the server: HTTP/1.1 over one kept connection."""

from __future__ import annotations

import asyncio
from typing import Self, cast


class Answer:
    """Status, headers (lower-case names) and body of a response."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, head: bytes, body: bytes) -> None:
        status_line, _, rest = head.partition(b"\r\n")
        self.status = int(status_line[9:12])
        self.headers = rest
        self.body = body


class Connection(asyncio.Protocol):
    """One kept connection; one request at a time."""

    def __init__(self, host: str) -> None:
        self._host = host.encode()
        self._buffer = bytearray()
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        """Connect."""
        _, connection = await asyncio.get_running_loop().create_connection(lambda: cls(f"{host}:{port}"), host, port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports have the interface and not the class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        """Collect until the answer is whole (``content-length`` only)."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._answer is None or self._answer.done():
            return
        head = bytes(self._buffer[:end])
        length = 0
        at = head.lower().find(b"content-length:")
        if at >= 0:
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        self._answer.set_result(Answer(head, body))

    async def post(self, path: str, body: bytes, headers: str = "") -> Answer:
        """Send one request; ``headers`` are whole lines, each with its line end."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(
            b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
            % (path.encode(), self._host, len(body), headers.encode(), body)
        )
        return await self._answer

    def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.close()
