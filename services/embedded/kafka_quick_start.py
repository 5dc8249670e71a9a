"""How does Kafka start in half the time? From a cache that Java makes of a run of it (JEP 483, 514), once a machine."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from services.embedded.errors import CannotStart
from services.embedded.jars import locked_file
from services.embedded.kafka_install import KafkaInstallation
from services.embedded.progress import Progress

RECORD_SECONDS = 60.0
"""How long Java may take to write down what a run loaded; on an idle machine it takes one second."""

Run = Callable[[Path, tuple[str, ...], float], Awaitable[None]]
"""Starts Kafka in a folder with options for the JVM, and stops it, giving it so many seconds to end."""


async def ensure_quick_start(installation: KafkaInstallation, run: Run, progress: Progress, *, heap_mb: int) -> None:
    """Makes the cache unless there is one; takes some seconds, once a machine.

    A machine on which that fails starts Kafka without; it is not tried again.
    """
    cache = installation.quick_start
    if cache.exists():
        return
    async with locked_file(installation.folder / "quick-start.lock"):
        if cache.exists():
            return
        progress.step("preparing Apache Kafka for quick starts (once)")
        with tempfile.TemporaryDirectory(dir=installation.folder) as name:
            folder = Path(name)
            made = await _make(installation, run, folder, heap_mb)
            # In one step, so that no other start reads half of it.
            made.replace(cache)


async def _make(installation: KafkaInstallation, run: Run, folder: Path, heap_mb: int) -> Path:
    """The finished cache, or an empty file when it could not be made."""
    recorded, made = folder / "recorded", folder / "made"
    try:
        await run(folder, ("-XX:AOTMode=record", f"-XX:AOTConfiguration={recorded}"), RECORD_SECONDS)
    except CannotStart:
        recorded.unlink(missing_ok=True)
    if recorded.exists():
        options = ("-XX:AOTMode=create", f"-XX:AOTConfiguration={recorded}", f"-XX:AOTCache={made}")
        process = await asyncio.create_subprocess_exec(
            *installation.command(heap_mb=heap_mb, options=options),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
    if not made.exists():
        made.touch()
    return made
