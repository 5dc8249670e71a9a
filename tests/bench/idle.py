"""CPU time of ``nest up`` without calls, by process."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.measure import cpu_seconds, resident_megabytes
from tests.nest_up import nest_up

SETTLE_SECONDS: Final = 15.0
"""The work of a start goes on for some seconds."""
SECONDS: Final = 20.0


async def idle(settle: float = SETTLE_SECONDS, seconds: float = SECONDS) -> tuple[dict[str, float], dict[str, float]]:
    """Run ``nest up`` and leave it alone.

    Returns:
        percent of a core, and resident memory in MB, by process: ``services``, which is all five, ``kafka`` and
        ``mongo``.
    """
    with tempfile.TemporaryDirectory(prefix="nest-idle-") as name:
        async with nest_up(Path(name)) as up:
            pids = {"services": up.process.pid} | _children(Path(name))
            await asyncio.sleep(settle)
            before = cpu_seconds(pids)
            await asyncio.sleep(seconds)
            after = cpu_seconds(pids)
            return {each: 100 * (after[each] - before[each]) / seconds for each in pids}, resident_megabytes(pids)


def _children(folder: Path) -> dict[str, int]:
    return {file.stem: json.loads(file.read_text())["pid"] for file in sorted(folder.glob("pids/*.json"))}
