"""A sample service as a process that tests kill, freeze and restart."""

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


class WorkerProcess:
    """A process of a sample service.

    Args:
        name: ``ledger`` or ``audit``.
        environment: settings as environment variables.
        log: file for its output.
    """

    def __init__(self, name: str, environment: Mapping[str, str], log: Path) -> None:
        self._name = name
        self._environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process ID of the running process, or of the last one."""
        assert self._process is not None, "it was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """True if the process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def log(self) -> str:
        """Output of all processes so far."""
        return self._log.read_text(errors="replace")

    async def start(self, **environment: str) -> None:
        """Start a process without waiting until it is ready."""
        assert not self.running
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.shared.sample_services", self._name),
                cwd=ROOT,
                env={**os.environ, **self._environment, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        """Kill the process with SIGKILL; fail if it does not run."""
        assert self.running, f"no process to kill: {self.log[-2000:]}"
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        assert await self._process.wait() == -signal.SIGKILL

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend the process with SIGSTOP during the block, as a machine that swaps would."""
        assert self.running
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    async def crashed(self, seconds: float = 30.0) -> None:
        """Wait until the process has died at its fault point."""
        assert await self._ended(seconds) == EXIT_CODE, f"not killed at the fault point: {self.log[-2000:]}"

    async def stop(self, seconds: float = 30.0) -> int:
        """Send SIGTERM and return the exit code."""
        assert self._process is not None
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        return await self._ended(seconds)

    async def end(self) -> None:
        """Kill the process if it still runs."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def _ended(self, seconds: float) -> int:
        assert self._process is not None
        async with asyncio.timeout(seconds):
            return await self._process.wait()


@asynccontextmanager
async def worker(name: str, environment: Mapping[str, str], folder: Path) -> AsyncIterator[WorkerProcess]:
    """A worker process that is killed at the end of the block."""
    process = WorkerProcess(name, environment, folder / f"{name}.log")
    try:
        yield process
    finally:
        await process.end()
