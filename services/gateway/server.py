"""HTTP server: uvicorn with httptools, inside a running event loop and without signal handlers."""

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
"""Keep-alive timeout: longer than that of proxies in front, which otherwise send requests to a closing connection."""


class Server:
    """HTTP server of an ASGI app.

    Args:
        app: handles the requests.
        host: an address of this machine, ``0.0.0.0`` or ``::``.
        port: 0 for any free one.
        connections: limit of open connections.
        drain_seconds: how long ``stop`` waits for requests in progress.
    """

    def __init__(self, app: ASGIApp, *, host: str, port: int, connections: int, drain_seconds: float) -> None:
        self._host = host
        self._requested_port = port
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
        """TCP port, once it has started."""

    async def start(self) -> None:
        """Start to listen.

        Raises:
            OSError: the port is in use, or the address is not one of this machine.
        """
        listener = _listener(self._host, self._requested_port)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve([listener]))
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Accept no more requests, and wait for those in progress for at most ``drain_seconds``."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only for sockets with an explicit protocol, which ``socket.create_server`` does
    # not set. Otherwise a response of two writes waits 40 ms for the peer's delayed acknowledgement.
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
        """Do nothing: the process handles signals."""
        yield
