"""CPU time of a process by package and by function, from samples of py-spy."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SAMPLES_PER_SECOND: Final = 200
FUNCTIONS: Final = 15
_FRAME: Final = re.compile(r"^(?P<function>.+) \((?P<file>[^:()]+)(?::\d+)?\)$")
_WAITING: Final = frozenset({"select", "poll", "_wait_for_tstate_lock", "wait"})
_LOOP: Final = "asyncio/runners.py"
EVENT_LOOP: Final = ("event loop", "uvloop")
"""What samples of a loop are called that runs no Python: uvloop is compiled, and py-spy sees only its caller."""


@dataclass
class Shares:
    """Parts of the CPU time of a process, from 0 to 1.

    Attributes:
        packages: without the functions that they call in other packages; Nest's own are ``services.auth``,
            ``shared.bus`` and the like.
        functions: with everything that they call; the most expensive ones of Nest and of its libraries.
        own: without what they call.
    """

    packages: dict[str, float] = field(default_factory=dict)
    functions: dict[str, float] = field(default_factory=dict)
    own: dict[str, float] = field(default_factory=dict)


async def sample(pid: int, seconds: float, file: Path) -> str:
    """Sample the stacks of a process, without pausing it.

    Returns:
        an empty text; or why py-spy could not, for example that it needs root.
    """
    spy = Path(sys.executable).with_name("py-spy")
    process = await asyncio.create_subprocess_exec(
        *(spy, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds)))),
        *("--rate", str(SAMPLES_PER_SECOND), "--format", "raw", "--nonblocking", "--output", str(file)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return f"py-spy: {output.decode(errors='replace')[-500:]}" if process.returncode else ""


def shares(samples: str) -> Shares:
    """Return the shares of samples in py-spy's raw format: a line of frames, then their number."""
    packages, functions, own = Counter[str](), Counter[str](), Counter[str]()
    total = 0
    for frames, count in _stacks(samples):
        total += count
        packages[package(frames[-1][1])] += count
        own[_named(*frames[-1])] += count
        for name in {_named(*frame) for frame in frames}:
            functions[name] += count
    if not total:
        return Shares()

    def parts(counts: Counter[str]) -> dict[str, float]:
        return {name: count / total for name, count in counts.most_common(FUNCTIONS)}

    return Shares(parts(packages), parts(functions), parts(own))


def _stacks(samples: str) -> Iterator[tuple[list[tuple[str, str]], int]]:
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        found = [_FRAME.match(frame) for frame in stack.split(";")]
        frames = [(each["function"], each["file"]) for each in found if each is not None]
        if frames and frames[-1][0] not in _WAITING:
            yield _within_loop(frames), int(count)


def _within_loop(frames: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The frames without those that started the loop."""
    starts = [number for number, (_, file) in enumerate(frames) if file == _LOOP]
    return (frames[starts[-1] + 1 :] or [EVENT_LOOP]) if starts else frames


def package(file: str) -> str:
    """The package of a source file: Nest's by its two first folders, a library's by its name.

    Those of Python's own library are below ``Python``.
    """
    parts = _module(file).split(".")
    if parts[0] in ("services", "shared"):
        return ".".join(parts[:2])
    return f"Python: {parts[0]}" if parts[0] in sys.stdlib_module_names else parts[0]


def _module(file: str) -> str:
    """The dotted name of a source file. py-spy shortens paths by the folders of ``sys.path``."""
    return ".".join(Path(file.rpartition("site-packages/")[2]).with_suffix("").parts)


def _named(function: str, file: str) -> str:
    return f"{_module(file)}: {function}"
