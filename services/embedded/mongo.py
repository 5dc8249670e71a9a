"""How is a real MongoDB run on this machine: a replica set of one, hence with transactions, durable?"""

import asyncio
import platform
import shutil
import sys
from importlib import util
from pathlib import Path

from services.embedded import libraries, ports
from services.embedded.children import end_orphan
from services.embedded.console import Progress
from services.embedded.errors import MongodMissing
from services.embedded.folder import make_writable
from services.embedded.server import Server

_CACHE_GB = 0.25  # the least that mongod accepts


class EmbeddedMongo(Server):
    """A MongoDB replica set `rs0` of one node on loopback, as an async context manager; `url` is its address.

    Data live in `folder/mongo`, the log in `folder/logs/mongo.log`, the process id in `folder/pids`. What was
    acknowledged survives `kill`.

    Args:
        folder: where everything is kept; made if missing.
        port: the port to listen on; 0 takes a free one, the same as the last time if possible.
        test_commands: lets tests inject faults (`configureFailPoint`).
        progress: told what happens.

    Raises, when started: MongodMissing, PortTaken, FolderNotWritable, AlreadyRunning, DidNotStart.
    """

    NAME = "mongo"
    TITLE = "MongoDB"

    def __init__(
        self, folder: Path, port: int = 0, *, test_commands: bool = False, progress: Progress | None = None
    ) -> None:
        super().__init__(folder, port, progress)
        self._test_commands = test_commands

    @property
    def url(self) -> str:
        """A connection string without a database; known once it was started, and the same after `kill`."""
        return f"mongodb://{ports.LOOPBACK}:{self._port}/?replicaSet=rs0"

    async def start(self) -> None:
        """Starts it, or starts it again on the same port and data; returns when it takes writes."""
        mongod = find_mongod()
        make_writable(self._data)
        await asyncio.to_thread(end_orphan, self._record, self._folder)
        self._take_port()
        self._progress.step("starting MongoDB")
        environment = libraries.environment(self._folder / "libraries")
        await self._run(self._command(mongod), self._until_primary, environment)

    def _command(self, mongod: Path) -> list[str | Path]:
        parameters = {
            "diagnosticDataCollectionEnabled": "false",
            # A node that is stopped waits 15 s for others to take over, and there are none.
            "shutdownTimeoutMillisForSignaledShutdown": "0",
            **({"enableTestCommands": "1"} if self._test_commands else {}),
        }
        return [
            mongod,
            *("--replSet", "rs0"),
            *("--dbpath", self._data),
            *("--bind_ip", ports.LOOPBACK),
            *("--port", str(self._port)),
            *("--wiredTigerCacheSizeGB", str(_CACHE_GB)),
            # By default a twentieth of the disk.
            *("--oplogSize", "256"),
            "--nounixsocket",
            "--quiet",
            *(word for name, value in parameters.items() for word in ("--setParameter", f"{name}={value}")),
        ]

    async def _until_primary(self) -> None:
        # The driver takes 0.2 s to import; by now mongod is starting meanwhile.
        from services.embedded.mongo_probe import connect, is_primary  # noqa: PLC0415

        async with connect(self._port) as client:
            await self._until(lambda: is_primary(client, self._port))

    def _why(self, code: int) -> str:
        """The loader's complaint if a library is missing, which a package can mend; else the exit code."""
        for line in reversed(self._log.read_text(errors="replace").splitlines()[-20:]):
            if "error while loading shared libraries:" in line:
                return line.partition("libraries: ")[2] + ", install the package that has it"
        return super()._why(code)


def find_mongod() -> Path:
    """The `mongod` of the package that carries one (Linux on x86-64), else the one on the PATH.

    Raises:
        MongodMissing: there is neither.
    """
    if sys.platform == "linux" and platform.machine() == "x86_64":
        # Found without importing: the package starts things of its own when imported.
        package = util.find_spec("fiftyone")
        for place in (package.submodule_search_locations or []) if package else []:
            carried = Path(place) / "db" / "bin" / "mongod"
            if carried.exists():
                return carried
    on_path = shutil.which("mongod")
    if on_path is None:
        raise MongodMissing
    return Path(on_path)
