"""Processes that are killed and started again, and the proof that it happened."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from shared.fault_points import EXIT_CODE

ROOT = Path(__file__).parent.parent.parent


class Worker:
    """A process of a service of the tests.

    Args:
        name: ``ledger`` or ``audit``.
        environment: its settings.
        log: where it writes.
    """

    def __init__(self, name: str, environment: Mapping[str, str], log: Path) -> None:
        self._name = name
        self._environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the one that runs, or ran last."""
        assert self._process is not None, "it was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    @property
    def log(self) -> str:
        """What all of its processes have written."""
        return self._log.read_text(errors="replace")

    async def start(self, **environment: str) -> None:
        """Start a process; returns at once, as a supervisor does."""
        assert not self.running
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.shared.process", self._name),
                cwd=ROOT,
                env={**os.environ, **self._environment, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        """End it as a power cut would; the run is void if it was not running."""
        assert self.running, f"nothing to kill: {self.log[-2000:]}"
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        assert await self._process.wait() == -signal.SIGKILL

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it bus still, as a machine that swaps, for as long as the block lasts."""
        assert self.running
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    async def crashed(self, seconds: float = 30.0) -> None:
        """Wait until it has died at the point it was told to; the run is void if it did not."""
        assert await self._ended(seconds) == EXIT_CODE, f"it did not die where it should: {self.log[-2000:]}"

    async def stop(self, seconds: float = 30.0) -> int:
        """Ask it to end, and give its exit code."""
        assert self._process is not None
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        return await self._ended(seconds)

    async def end(self) -> None:
        """Make sure that it is gone."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def _ended(self, seconds: float) -> int:
        assert self._process is not None
        async with asyncio.timeout(seconds):
            return await self._process.wait()


@asynccontextmanager
async def worker(name: str, environment: Mapping[str, str], folder: Path) -> AsyncIterator[Worker]:
    """A worker that is gone afterwards, whatever happens."""
    made = Worker(name, environment, folder / f"{name}.log")
    try:
        yield made
    finally:
        await made.end()
