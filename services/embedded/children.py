"""How are child processes started so that none outlives us for good, even after a kill -9?

Three nets, one below the other: `Child.stop` ends the process in order; where Linux offers it, the kernel
sends SIGTERM to the child when we die (`PR_SET_PDEATHSIG`); and each child is on record in a file, with its
process id and start time, so that the next start finds an orphan and ends it. A process id that was given to
another program meanwhile has another start time and is left alone.
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

STOP_SECONDS = 3.0
"""How long a child may take to end after SIGTERM before it is killed."""

_LOG_BYTES = 4 << 20

# Runs between fork and the real program: preexec_fn is unsafe once there are threads, and we have some.
# 1 is PR_SET_PDEATHSIG. A parent that died before the call would never be noticed, so ask for it after.
_LAUNCHER = """
import ctypes, os, sys
parent = int(sys.argv[1])
ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(0)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Child:
    """One running child process and its record on disk."""

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
        """Starts `command` (its first word is an absolute path) with both outputs appended to `log`.

        Without a log its lines are read from `output`.

        The child is in its own session, so that a terminal's Ctrl-C reaches only us, and we stop it in order.
        `end_orphan(record)` must have been called before.
        """
        words = dying_with_us(command)
        record.parent.mkdir(parents=True, exist_ok=True)
        with _output(log) as output:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        _write_record(record, process.pid)
        return cls(process, record)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def output(self) -> asyncio.StreamReader:
        """What it writes, when it was started without a log; must be read, or the child stops at a full pipe."""
        if self._process.stdout is None:
            raise RuntimeError("its output goes to its log")
        return self._process.stdout

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._process.returncode

    async def ended(self) -> None:
        """Returns when it has ended, for whatever reason."""
        await self._process.wait()

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ends the child: SIGTERM, then after `seconds` SIGKILL. Returns when it is gone; may be repeated."""
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            await self.kill()
        self._record.unlink(missing_ok=True)

    async def kill(self) -> None:
        """Ends the child as a power cut would: SIGKILL. Returns when it is gone."""
        self._signal(signal.SIGKILL)
        await self._process.wait()
        self._record.unlink(missing_ok=True)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def dying_with_us(command: Sequence[str | Path]) -> list[str]:
    """`command` (its first word is an absolute path) so started that the kernel ends it when we die, on Linux."""
    words = [str(word) for word in command]
    if sys.platform != "linux":
        return words
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *words]


def end_orphan(record: Path, folder: Path, seconds: float = STOP_SECONDS) -> bool:
    """Ends the child on `record` if it outlived its owner; true when there was one to end.

    Blocks for at most `seconds` and the moment that a SIGKILL takes.

    Raises:
        AlreadyRunning: the owner lives, so `folder` is in use.
    """
    try:
        known: dict[str, Any] = json.loads(record.read_text())
        child = (int(known["pid"]), str(known["started"]))
        owner = (int(known["owner"]), str(known["owner_started"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        # A record that a crash cut short names nobody; its child got SIGTERM from the kernel.
        record.unlink(missing_ok=True)
        return False
    if not _runs(*child):
        record.unlink(missing_ok=True)
        return False
    if _runs(*owner) and owner[0] != os.getpid():
        raise AlreadyRunning(folder, owner[0])
    _end(*child, seconds=seconds)
    record.unlink(missing_ok=True)
    return True


def _end(pid: int, started: str, *, seconds: float) -> None:
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while _runs(pid, started):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return


def _runs(pid: int, started: str) -> bool:
    return bool(started) and start_time(pid) == started


def start_time(pid: int) -> str:
    """When the process with this id started, as a text that no other process with the same id ever has.

    Empty when there is no such process, or only its zombie is left.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""
        # The name in parentheses may hold spaces and parentheses; state is field 3, start time field 22.
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in {"Z", "X"} else f"{boot}/{fields[19]}"
    found = subprocess.run(  # noqa: S603 - a fixed program and a number
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def _write_record(record: Path, pid: int) -> None:
    owner = os.getpid()
    known = {"pid": pid, "started": start_time(pid), "owner": owner, "owner_started": start_time(owner)}
    half = record.with_suffix(".new")
    half.write_text(json.dumps(known))
    half.replace(record)


@contextmanager
def _output(log: Path | None) -> Iterator[Any]:
    if log is None:
        yield subprocess.PIPE
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
    with log.open("ab") as output:
        yield output
