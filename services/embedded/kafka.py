"""How is a real Apache Kafka run on this machine: one node, broker and controller in one, durable?"""

import asyncio
import struct
from pathlib import Path

from services.embedded import ports
from services.embedded.children import end_orphan
from services.embedded.console import Progress, Silent
from services.embedded.folder import make_writable
from services.embedded.kafka_install import KafkaInstallation, ensure_startup_cache, install, properties
from services.embedded.server import Server

_HEAP_MB = 96


class EmbeddedKafka(Server):
    """An Apache Kafka on loopback, as an async context manager; `bootstrap` is its address.

    Data live in `folder/kafka`, the log in `folder/logs/kafka.log`, the process id in `folder/pids`. What was
    acknowledged survives `kill` (not a power cut: Kafka leaves writing to the disk to the kernel).

    Args:
        folder: where everything is kept; made if missing.
        port: the port to listen on; 0 takes a free one, the same as the last time if possible.
        heap_mb: the JVM's heap; 96 MB carry about a thousand partitions.
        progress: told what happens.

    Raises, when started: JarsMissing, JavaMissing, PortTaken, FolderNotWritable, AlreadyRunning, DidNotStart.
    """

    NAME = "kafka"
    TITLE = "Apache Kafka"

    def __init__(
        self, folder: Path, port: int = 0, *, heap_mb: int = _HEAP_MB, progress: Progress | None = None
    ) -> None:
        super().__init__(folder, port, progress)
        self._heap_mb = heap_mb
        self.left_over = False
        """After `start`: whether the owner of the last one in this folder was killed."""

    @property
    def bootstrap(self) -> str:
        """`host:port`; known once it was started, and the same after `kill` and `start`."""
        return f"{ports.LOOPBACK}:{self._port}"

    async def start(self) -> None:
        """Starts it, or starts it again on the same port and data; returns when it answers requests."""
        make_writable(self._data)
        installation = await install(self._progress)
        await ensure_startup_cache(installation, _run_once, self._progress, heap_mb=self._heap_mb)
        self.left_over = self._record.exists()
        await asyncio.to_thread(end_orphan, self._record, self._folder)
        quick = installation.startup_cache
        options = (f"-XX:AOTCache={quick}",) if quick.stat().st_size else ()
        self._progress.step("starting Apache Kafka")
        await self._launch(installation, options)

    async def _launch(self, installation: KafkaInstallation, options: tuple[str, ...]) -> None:
        self._take_port()
        file = self._folder / "kafka.properties"
        file.write_text(properties(port=self._port, controller=ports.any_free(), data=self._data))
        await installation.format(self._data)
        command = installation.command("kafka.Kafka", file, heap_mb=self._heap_mb, options=options)
        await self._run(command, lambda: self._until(lambda: answers(ports.LOOPBACK, self._port)))


async def _run_once(folder: Path, options: tuple[str, ...], seconds: float) -> None:
    """Starts a Kafka in `folder` and stops it, giving it `seconds` to end."""
    kafka = EmbeddedKafka(folder)
    make_writable(kafka._data)  # noqa: SLF001 - ours
    await kafka._launch(await install(Silent()), options)  # noqa: SLF001
    if kafka._child:  # noqa: SLF001
        await kafka._child.stop(seconds)  # noqa: SLF001


# Metadata request (API 3), version 1, correlation id 7, no client id, an array of no topics.
_METADATA = struct.pack(">hhihi", 3, 1, 7, -1, 0)


_TIMEOUT_SECONDS = 2.0


async def answers(host: str, port: int) -> bool:
    """Whether the broker there answers, and counts at least one live broker (itself) in its cluster."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(struct.pack(">i", len(_METADATA)) + _METADATA)
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                answer = await reader.readexactly(size)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    # Response version 1: correlation id, then the array of live brokers.
    correlation, brokers = struct.unpack_from(">ii", answer)
    return bool(correlation == 7 and brokers >= 1)  # noqa: PLR2004 - the id sent above
