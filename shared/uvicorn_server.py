"""Uvicorn's server within a process that handles signals itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn

TICK_SECONDS: Final = 1.0
"""Interval at which the header ``Date`` is renewed."""


class UvicornServer(uvicorn.Server):
    """Uvicorn's server, which leaves signals alone and sleeps at rest.

    Attributes:
        ready: set once ``serve`` listens.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._exiting = asyncio.Event()

    def exit(self) -> None:
        """Let ``serve`` return once the requests in progress have ended, or their time is over."""
        self.should_exit = True
        self._exiting.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Renew the header until ``exit``. Uvicorn's own loop looks ten times a second."""
        while not await self.on_tick(counter=0):
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._exiting.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield
