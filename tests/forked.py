"""Runs of the `nest` command in tests, forked from a server process that has imported all of it.

A run has its own process, environment, output and exit code, as from a shell. It takes 0.1 seconds of CPU; to start
Python and to import a service takes a second.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from shared import fault_points

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["__main__", "tests.forked_command"])


class Completed(NamedTuple):
    """A finished run."""

    code: int
    out: str
    err: str


class ForkedCommand:
    """A run of `nest`.

    Args:
        words: the arguments.
        environment: all of its variables.
        out: file to which standard output is appended.
        err: file to which standard error is appended.

    Attributes:
        pid: process ID, once it is started.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], out: Path, err: Path) -> None:
        arguments = (list(words), dict(environment), str(out), str(err))
        self._process = _CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self.pid = 0

    async def start(self) -> None:
        """Start it; the first run starts the server too."""
        await asyncio.to_thread(self._process.start)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative if a signal ended it."""
        return self._process.exitcode

    async def wait(self) -> int:
        """Wait for its end and return the exit code."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; it must not have ended."""
        os.kill(self.pid, number)


async def run(*words: str, environment: Mapping[str, str]) -> Completed:
    """Run `nest` to its end, with empty standard input."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        command = ForkedCommand(words, environment, out, err)
        await command.start()
        code = await asyncio.wait_for(command.wait(), 60)
        return await asyncio.to_thread(lambda: Completed(code, out.read_text(), err.read_text()))


def _run(words: list[str], environment: dict[str, str], out: str, err: str) -> None:
    from tests.forked_command import COMMAND  # noqa: PLC0415 -- imported by the server only

    if sys.platform == "linux":
        # As services.embedded.children does, so that no process outlives a killed test run. 1 is PR_SET_PDEATHSIG.
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate((os.devnull, out, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), number)
    importlib.reload(fault_points)  # it reads NEST_CRASH_AT
    COMMAND(words, prog_name="nest")
