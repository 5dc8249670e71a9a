"""What do the embedded Kafka and MongoDB share? A folder, a port, a child process, and a wait until it works."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from services.embedded import ports
from services.embedded.children import Child
from services.embedded.console import Progress, Silent
from services.embedded.errors import DidNotStart, PortTaken

READY_SECONDS = 60.0
"""How long a start may take; on an idle machine it takes some seconds, on one with a hundred tests on it far longer."""


class Server(ABC):
    """A server on loopback, run as our child, as an async context manager.

    Data live in `folder/<name>`, the log in `folder/logs/<name>.log`, the process id in `folder/pids`.

    Args:
        folder: where everything is kept; made if missing.
        port: the port to listen on; 0 takes a free one, the same as the last time if possible.
        progress: told what happens.
    """

    NAME: ClassVar[str]
    """As files are named after it."""
    TITLE: ClassVar[str]
    """As people call it."""

    def __init__(self, folder: Path, port: int, progress: Progress | None) -> None:
        self._folder = folder.absolute()
        self._wanted_port = port
        self._progress = progress or Silent()
        self._port = 0
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        return self._child.pid if self._child else None

    @abstractmethod
    async def start(self) -> None:
        """Starts it, or starts it again on the same port and data; returns when it works."""

    async def stop(self) -> None:
        """Stops it in order; returns when it is gone. Nothing to do when it does not run."""
        child, self._child = self._child, None
        if child:
            await child.stop()

    async def kill(self) -> None:
        """Ends it by SIGKILL, as a fault test wants; `start` brings it back with what it had acknowledged."""
        child, self._child = self._child, None
        if child:
            await child.kill()

    @property
    def _data(self) -> Path:
        return self._folder / self.NAME

    @property
    def _record(self) -> Path:
        return self._folder / "pids" / f"{self.NAME}.json"

    @property
    def _log(self) -> Path:
        return self._folder / "logs" / f"{self.NAME}.log"

    def _take_port(self) -> None:
        if not self._port:
            self._port = self._wanted_port or ports.remembered(self._folder / f"{self.NAME}.port")
        if not ports.is_free(self._port):
            raise PortTaken(self.TITLE, self._port, "stop that program or give another port")

    async def _run(
        self,
        command: Sequence[str | Path],
        until_ready: Callable[[], Awaitable[None]],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the child; one that does not come to work is not left running."""
        self._child = await Child.start(command, record=self._record, log=self._log, environment=environment)
        try:
            await until_ready()
        except BaseException:
            await self.stop()
            raise

    async def _until(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Waits until the child is ready.

        Raises:
            DidNotStart: it ended, or took too long.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not await ready():
            code = self._child.exit_code if self._child else 0
            if code is not None:
                raise DidNotStart(self.TITLE, self._why(code), self._log)
            if time.monotonic() > deadline:
                raise DidNotStart(self.TITLE, f"not ready in {READY_SECONDS:.0f} s", self._log)
            await asyncio.sleep(0.02)

    def _why(self, code: int) -> str:
        """Why it ended, for a person."""
        return f"it ended with code {code}"


async def together(*work: Coroutine[Any, Any, Any]) -> None:
    """Runs all of them side by side.

    Raises:
        Exception: the first failure, after the others were cancelled and have come to their end.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
