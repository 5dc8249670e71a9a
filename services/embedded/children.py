"""Child processes that do not outlive their parent for good, even after `kill -9`.

Three mechanisms, each for the failure of the one before:

1. `Child.stop` stops the process in order.
2. On Linux the kernel sends SIGTERM to the child when the parent dies (`PR_SET_PDEATHSIG`).
3. A file records each child with its process ID and start time, so that the next start finds and stops an orphan. A
   process ID that the system gave to another program since then has another start time and is ignored.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from services.embedded.errors import AlreadyRunning
from services.embedded.folder import replace_file

STOP_SECONDS = 3.0
"""How long a child may take to exit after SIGTERM before it is killed."""
_MAX_LOG_BYTES = 4 << 20

# Runs between fork and the program, because preexec_fn is unsafe in a process with threads. 1 is PR_SET_PDEATHSIG. The
# kernel does not report a parent that died before the call, so the parent is compared afterwards.
_LAUNCHER = """
import ctypes, os, sys
parent = int(sys.argv[1])
ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(0)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Child:
    """A running child process and its record on disk."""

    def __init__(self, process: asyncio.subprocess.Process, record: Path) -> None:
        self._process = process
        self._record = record

    @classmethod
    async def start(
        cls,
        command: Sequence[str | Path],
        *,
        record: Path,
        log: Path | None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Start a command, whose first word is an absolute path. Call `stop_orphan(record)` before.

        Both outputs are appended to the log; without a log, read them from `output`. The child has its own session, so
        that a terminal sends Ctrl-C to the parent only.
        """
        record.parent.mkdir(parents=True, exist_ok=True)
        with _open_output(log) as output:
            process = await asyncio.create_subprocess_exec(
                *bound_to_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        pids = {"pid": process.pid, "owner": os.getpid()}
        starts = {"started": start_time(process.pid), "owner_started": start_time(os.getpid())}
        replace_file(record, json.dumps(pids | starts))
        return cls(process, record)

    @property
    def pid(self) -> int:
        """Process ID."""
        return self._process.pid

    @property
    def output(self) -> asyncio.StreamReader:
        """Both outputs of a child without a log. They must be read, or the child blocks when the pipe is full."""
        if self._process.stdout is None:
            raise RuntimeError("the output of this child goes to its log")
        return self._process.stdout

    @property
    def exit_code(self) -> int | None:
        """Exit code, or the negative number of the signal that ended it; None while it runs."""
        return self._process.returncode

    async def wait(self) -> None:
        """Wait until the child has exited."""
        await self._process.wait()

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Send SIGTERM, then SIGKILL after some seconds, and wait until the child has exited. May be repeated."""
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            await self.kill()
        self._record.unlink(missing_ok=True)

    async def kill(self) -> None:
        """Send SIGKILL, and wait until the child has exited."""
        self._signal(signal.SIGKILL)
        await self._process.wait()
        self._record.unlink(missing_ok=True)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def bound_to_parent(command: Sequence[str | Path]) -> list[str]:
    """Wrap a command, so that the Linux kernel stops it when this process dies; elsewhere return it unchanged."""
    words = [str(word) for word in command]
    if sys.platform != "linux":
        return words
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *words]


def stop_orphan(record: Path, folder: Path, seconds: float = STOP_SECONDS) -> bool:
    """Stop a recorded child that outlived its parent; return whether there was one.

    Blocks for at most `seconds`, plus the time that a SIGKILL takes.

    Raises:
        AlreadyRunning: the parent runs, so `folder` is in use.
    """
    try:
        known: dict[str, Any] = json.loads(record.read_text())
        child = (int(known["pid"]), str(known["started"]))
        owner = (int(known["owner"]), str(known["owner_started"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        # A crash may truncate the record. The kernel has stopped that child.
        record.unlink(missing_ok=True)
        return False
    runs = _is_running(*child)
    if runs and _is_running(*owner) and owner[0] != os.getpid():
        raise AlreadyRunning(folder, owner[0])
    if runs:
        _stop(*child, seconds=seconds)
    record.unlink(missing_ok=True)
    return runs


def _stop(pid: int, started: str, *, seconds: float) -> None:
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not _is_running(pid, started):
                return
            time.sleep(0.02)


def _is_running(pid: int, started: str) -> bool:
    return bool(started) and start_time(pid) == started


def start_time(pid: int) -> str:
    """Return a text that differs for all processes that ever have this ID; empty if none runs, or only its zombie."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""
        # The name in parentheses may contain spaces and parentheses; the state is field 3, the start time field 22.
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in {"Z", "X"} else f"{boot}/{fields[19]}"
    found = subprocess.run(  # noqa: S603 - a fixed program and a number
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


@contextmanager
def _open_output(log: Path | None) -> Iterator[Any]:
    if log is None:
        yield subprocess.PIPE
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
    with log.open("ab") as output:
        yield output
