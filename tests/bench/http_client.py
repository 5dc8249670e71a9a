"""Minimal HTTP/1.1 client for benchmarks: one kept connection, one request at a time, little CPU."""

from __future__ import annotations

import asyncio
from typing import cast


class Response:
    """Status, raw headers and body of a response."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, head: bytes, body: bytes) -> None:
        status_line, _, headers = head.partition(b"\r\n")
        self.status = int(status_line[9:12])
        self.headers = headers
        self.body = body


class Connection(asyncio.Protocol):
    """A kept connection that reconnects before a request if the server has closed it.

    A server closes connections that idle, for example while another operation is measured.

    Args:
        host: name or address of the server.
        port: its TCP port.

    Attributes:
        every: header lines of every request, each with its line end.
    """

    def __init__(self, host: str, port: int) -> None:
        self.every = ""
        self._host = host
        self._port = port
        self._buffer = bytearray()
        self._response: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()

    async def connect(self) -> None:
        """Open the connection, after closing the present one."""
        if self._transport is not None:
            self.close()
            await self.closed()
        self._buffer.clear()
        await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports have the interface but not the class.
        self._transport = cast("asyncio.Transport", transport)
        self._lost.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way."""
        self._transport = None
        self._lost.set()
        if self._response is not None and not self._response.done():
            self._response.set_exception(exc or ConnectionResetError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        """Collect the response until ``content-length`` bytes of its body are there."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._response is None or self._response.done():
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
        self._response.set_result(Response(head, body))

    async def post(self, path: str, body: bytes, headers: str = "") -> Response:
        """Send one request.

        Args:
            path: the request target.
            body: the JSON body.
            headers: further header lines, each with its line end.

        Raises:
            ConnectionError: the server closed the connection before it answered.
        """
        if self._transport is None or self._transport.is_closing():
            await self.connect()
        assert self._transport is not None
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(self.request(path, body, headers))
        return await self._response

    def request(self, path: str, body: bytes, headers: str = "") -> bytes:
        """Return the bytes of the request that ``post`` sends."""
        return (
            b"POST %b HTTP/1.1\r\nhost: %b:%d\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
            % (path.encode(), self._host.encode(), self._port, len(body), (self.every + headers).encode(), body)
        )

    async def closed(self) -> None:
        """Wait until the server has closed the connection."""
        await self._lost.wait()

    def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.abort()
