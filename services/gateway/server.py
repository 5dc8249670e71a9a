"""How does the gateway listen? uvicorn with httptools, inside a loop that runs already, and leaving signals alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from services.gateway.connection import Connection

BACKLOG: Final = 2048
IDLE_SECONDS: Final = 75
"""How long a connection may rest between two requests: longer than the proxies in front, which else send into a
connection that is being closed."""


class Server:
    """Serves an ASGI app over HTTP.

    Args:
        app: what answers.
        host: an address of this machine, or ``0.0.0.0``, or ``::``.
        port: 0 takes a free one.
        connections: how many may be open at once.
        drain_seconds: how long a stop waits for requests under way.
    """

    def __init__(self, app: ASGIApp, *, host: str, port: int, connections: int, drain_seconds: float) -> None:
        self._host = host
        self._wanted_port = port
        self._server = _Server(
            uvicorn.Config(
                app,
                http=type("Connection", (Connection,), {"limit": connections}),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
            )
        )
        self._task: asyncio.Task[None] | None = None
        self.port = 0
        """Where it listens, once it has started."""

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is taken or not ours.
        """
        listener = _listener(self._host, self._wanted_port)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve([listener]))
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Take no more requests and answer those under way, within the bound."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, unlike in ``socket.create_server``: asyncio switches Nagle's algorithm off only where it
    # is, and else an answer of two writes waits 40 ms for the other side's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process as a whole answers to signals."""
        yield
