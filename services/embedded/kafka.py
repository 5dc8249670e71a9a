"""How is a real Apache Kafka run on this machine: one node, broker and controller in one, durable?"""

import asyncio
from pathlib import Path

from services.embedded import ports
from services.embedded.children import end_orphan
from services.embedded.folder import make_writable
from services.embedded.kafka_install import KafkaInstallation, install
from services.embedded.kafka_probe import answers
from services.embedded.kafka_properties import properties
from services.embedded.kafka_quick_start import ensure_quick_start
from services.embedded.progress import Progress, Silent
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
        await ensure_quick_start(installation, _run_once, self._progress, heap_mb=self._heap_mb)
        self.left_over = self._record.exists()
        await asyncio.to_thread(end_orphan, self._record, self._folder)
        quick = installation.quick_start
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
