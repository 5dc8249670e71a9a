"""`nest up` in a process of its own, with its own Kafka and MongoDB in a folder."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.embedded import ports

READY_SECONDS = 90.0
"""Limit beside other tests on two cores; alone a start takes four seconds."""
STOP_SECONDS = 30.0


@dataclass
class NestUp:
    """A running `nest up`."""

    folder: Path
    base_url: str
    process: asyncio.subprocess.Process
    seconds: float
    """Duration of the start."""
    output: str = field(default="")
    """Standard output and standard error so far."""

    async def stop(self) -> float:
        """Stop it as Ctrl-C does.

        Returns:
            the seconds until it had stopped.
        """
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_SECONDS):
            self.output += await rest(self.process)
            await self.process.wait()
        return time.monotonic() - began

    async def kill(self) -> None:
        """Kill it with SIGKILL; its children are left running."""
        self.process.kill()
        await self.process.wait()


async def start(folder: Path, port: int, variables: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
    """Start it with variables instead of the NEST_ variables of this environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEST_")}
    environment |= variables or {}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "up", "--data", str(folder), "--port", str(port)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )


async def rest(process: asyncio.subprocess.Process) -> str:
    """The rest of its output."""
    assert process.stdout
    return (await process.stdout.read()).decode()


@asynccontextmanager
async def nest_up(folder: Path, port: int = 0, variables: Mapping[str, str] | None = None) -> AsyncIterator[NestUp]:
    """Run it while the context is entered, or until the test ends it."""
    port = port or ports.any_free()
    began = time.monotonic()
    process = await start(folder, port, variables)
    assert process.stdout
    printed = ""
    try:
        async with asyncio.timeout(READY_SECONDS):
            while "Ctrl-C stops it." not in printed:
                line = await process.stdout.readline()
                assert line, f"nest up ended:\n{printed}"
                printed += line.decode()
        running = NestUp(folder, f"http://127.0.0.1:{port}", process, time.monotonic() - began, printed)
        yield running
        if process.returncode is None:
            await running.stop()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
