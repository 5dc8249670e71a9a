"""Shares of a CPU core for processes, by control groups of Linux.

The kernel stops a process for the rest of each period once it has used its share (``cpu.cfs_quota_us``,
https://docs.kernel.org/scheduler/sched-bwc.html). So on a machine with few cores several instances can be measured as
if each had a small core of its own, while Kafka, MongoDB and the load generator are not the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

PERIOD_MICROSECONDS: Final = 10_000
"""Short, so that a process that has used its share waits for milliseconds only."""
VERSION_1: Final = Path("/sys/fs/cgroup/cpu")
VERSION_2: Final = Path("/sys/fs/cgroup")


class NoCpuShares(Exception):
    """The machine does not let this user divide its CPU time."""


class CpuShares:
    """The same share of a core for each of some processes, as a context manager.

    Args:
        pids: the processes by name.
        share: of one core, for each; 0.1 is a tenth.

    Raises:
        NoCpuShares: control groups are missing or not writable.
    """

    def __init__(self, pids: Mapping[str, int], share: float) -> None:
        self._pids = dict(pids)
        self._share = share
        self._first_version = (VERSION_1 / "cpu.cfs_period_us").exists() or (VERSION_1 / "cgroup.procs").exists()
        self._root = VERSION_1 if self._first_version else VERSION_2

    def __enter__(self) -> Self:
        try:
            if not self._first_version:
                (self._root / "cgroup.subtree_control").write_text("+cpu")
            for pid in self._pids.values():
                self._group(pid).mkdir(exist_ok=True)
                (self._group(pid) / "cgroup.procs").write_text(str(pid))
        except OSError as failure:
            self._remove()
            raise NoCpuShares(
                f"control groups at {self._root} can't be written ({failure.strerror}): run this as root of the"
                " machine, or in a privileged container"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def limit(self) -> None:
        """Give each process its share and no more."""
        self._write(round(self._share * PERIOD_MICROSECONDS))

    def lift(self) -> None:
        """Let the processes use all the time that they get."""
        self._write(None)

    def _write(self, quota: int | None) -> None:
        for pid in self._pids.values():
            group = self._group(pid)
            if self._first_version:
                (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
                (group / "cpu.cfs_quota_us").write_text("-1" if quota is None else str(quota))
            else:
                (group / "cpu.max").write_text(f"{'max' if quota is None else quota} {PERIOD_MICROSECONDS}")

    def _group(self, pid: int) -> Path:
        return self._root / f"nest-bench-{pid}"

    def _remove(self) -> None:
        for pid in self._pids.values():
            group = self._group(pid)
            if group.exists():
                # A group with a process can't be removed, so the process returns to the root group.
                for member in (group / "cgroup.procs").read_text().split():
                    (self._root / "cgroup.procs").write_text(member)
                group.rmdir()
