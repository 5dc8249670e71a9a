"""Base class of the embedded Kafka and MongoDB: a server on loopback as a child process."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from services.embedded import ports
from services.embedded.children import STOP_SECONDS, Child
from services.embedded.console import Progress, Silent
from services.embedded.errors import DidNotStart, PortTaken

READY_SECONDS = 60.0
"""How long a start may take: seconds on an idle machine, much longer beside a hundred tests."""


class Server(ABC):
    """A server on loopback as a child process, as an async context manager.

    Its data are in `folder/<name>`, its log is `folder/logs/<name>.log`, its process ID in `folder/pids`.

    Args:
        folder: folder for everything; created if missing.
        port: port to listen on; 0 for a free one, if possible the same as last time.
        progress: receives the steps.
    """

    NAME: ClassVar[str]
    """Name in file names."""
    TITLE: ClassVar[str]
    """Name in messages."""

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
        """Process ID; None while it does not run."""
        return self._child.pid if self._child else None

    @abstractmethod
    async def start(self) -> None:
        """Start or restart the server with its port and data, and wait until it is ready.

        Raises:
            CannotStart: with the remedy, such as PortTaken, FolderNotWritable, AlreadyRunning or DidNotStart.
        """

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the server, if it runs, and wait until it has exited; kill it after `seconds`."""
        child, self._child = self._child, None
        if child:
            await child.stop(seconds)

    async def kill(self) -> None:
        """Kill the server with SIGKILL, for tests of faults; `start` restarts it with its acknowledged data."""
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

    def _reserve_port(self) -> None:
        if not self._port:
            self._port = self._wanted_port or ports.stored(self._folder / f"{self.NAME}.port")
        if not ports.is_free(self._port):
            raise PortTaken(self.TITLE, self._port, "stop that program or choose another port")

    async def _run(
        self,
        command: Sequence[str | Path],
        until_ready: Callable[[], Awaitable[None]],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the child and wait until it is ready; stop it if it does not become ready."""
        self._child = await Child.start(command, record=self._record, log=self._log, environment=environment)
        try:
            await until_ready()
        except BaseException:
            await self.stop()
            raise

    async def _until(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Poll until the child is ready.

        Raises:
            DidNotStart: it exited, or was not ready in time.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not await ready():
            code = self._child.exit_code if self._child else 0
            if code is not None:
                raise DidNotStart(self.TITLE, self._exit_reason(code), self._log)
            if time.monotonic() > deadline:
                raise DidNotStart(self.TITLE, f"not ready in {READY_SECONDS:.0f} s", self._log)
            await asyncio.sleep(0.02)

    def _exit_reason(self, code: int) -> str:
        return f"it exited with code {code}"


async def run_all(*work: Coroutine[Any, Any, Any]) -> None:
    """Run coroutines concurrently.

    Raises:
        Exception: the first failure, after the others were cancelled and have ended.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
