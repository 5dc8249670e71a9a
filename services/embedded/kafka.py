"""How is a real Apache Kafka run on this machine: one node, broker and controller in one, durable?"""

import asyncio
import time
from pathlib import Path
from typing import Self

from services.embedded import ports
from services.embedded.children import Child, end_orphan
from services.embedded.errors import DidNotStart, PortTaken
from services.embedded.folder import make_writable
from services.embedded.kafka_install import KafkaInstallation, install
from services.embedded.kafka_probe import answers
from services.embedded.kafka_properties import properties
from services.embedded.kafka_quick_start import ensure_quick_start
from services.embedded.progress import Progress, Silent

READY_SECONDS = 60.0
"""How long a start may take; on an idle machine it takes 2.5 s, on one with a hundred tests on it far longer."""

_HEAP_MB = 96


class EmbeddedKafka:
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

    def __init__(
        self, folder: Path, port: int = 0, *, heap_mb: int = _HEAP_MB, progress: Progress | None = None
    ) -> None:
        self._folder = folder.absolute()
        self._wanted_port = port
        self._heap_mb = heap_mb
        self._progress = progress or Silent()
        self._port = 0
        self.left_over = False
        """After `start`: whether the owner of the last one in this folder was killed."""
        self._child: Child | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port`; known once it was started, and the same after `kill` and `start`."""
        return f"{ports.LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The JVM's process id, None while it does not run."""
        return self._child.pid if self._child else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

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
        file = self._prepare()
        await installation.format(self._data)
        command = installation.command("kafka.Kafka", file, heap_mb=self._heap_mb, options=options)
        self._child = await Child.start(command, record=self._record, log=self._log)
        try:
            await self._until_ready(self._child)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stops it in order; returns when it is gone. Nothing to do when it does not run."""
        child, self._child = self._child, None
        if child:
            await child.stop()

    async def kill(self) -> None:
        """Ends it by SIGKILL, as a fault test wants; `start` brings it back with what it had acknowledged."""
        child, self._child = self._child, None
        if child:
            await child.kill()

    @property
    def _data(self) -> Path:
        return self._folder / "kafka"

    @property
    def _record(self) -> Path:
        return self._folder / "pids" / "kafka.json"

    @property
    def _log(self) -> Path:
        return self._folder / "logs" / "kafka.log"

    def _prepare(self) -> Path:
        if not self._port:
            self._port = self._wanted_port or ports.remembered(self._folder / "kafka.port")
        if not ports.is_free(self._port):
            raise PortTaken("Apache Kafka", self._port, "stop that program or give another port")
        file = self._folder / "kafka.properties"
        file.write_text(properties(port=self._port, controller=ports.any_free(), data=self._data))
        return file

    async def _until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not await answers(ports.LOOPBACK, self._port):
            if child.exit_code is not None:
                raise DidNotStart("Apache Kafka", f"it ended with code {child.exit_code}", self._log)
            if time.monotonic() > deadline:
                raise DidNotStart("Apache Kafka", f"no answer in {READY_SECONDS:.0f} s", self._log)
            await asyncio.sleep(0.02)


async def _run_once(folder: Path, options: tuple[str, ...], seconds: float) -> None:
    """Starts a Kafka in `folder` and stops it, giving it `seconds` to end."""
    kafka = EmbeddedKafka(folder)
    make_writable(kafka._data)  # noqa: SLF001 - ours
    await kafka._launch(await install(Silent()), options)  # noqa: SLF001
    if kafka._child:  # noqa: SLF001
        await kafka._child.stop(seconds)  # noqa: SLF001
