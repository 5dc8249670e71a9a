"""How is a real MongoDB run on this machine: a replica set of one, hence with transactions, durable?"""

import asyncio
import platform
import shutil
import sys
import time
from importlib import util
from pathlib import Path
from typing import Self

from services.embedded import libraries, ports
from services.embedded.children import Child, end_orphan
from services.embedded.errors import DidNotStart, MongodMissing, PortTaken
from services.embedded.folder import make_writable
from services.embedded.progress import Progress, Silent

READY_SECONDS = 60.0
"""How long a start may take; on an idle machine it takes one second."""

_CACHE_GB = 0.25  # the least that mongod accepts


class EmbeddedMongo:
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

    def __init__(
        self, folder: Path, port: int = 0, *, test_commands: bool = False, progress: Progress | None = None
    ) -> None:
        self._folder = folder.absolute()
        self._wanted_port = port
        self._test_commands = test_commands
        self._progress = progress or Silent()
        self._port = 0
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """A connection string without a database; known once it was started, and the same after `kill`."""
        return f"mongodb://{ports.LOOPBACK}:{self._port}/?replicaSet=rs0"

    @property
    def pid(self) -> int | None:
        """The process id of mongod, None while it does not run."""
        return self._child.pid if self._child else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts it, or starts it again on the same port and data; returns when it takes writes."""
        mongod = find_mongod()
        make_writable(self._data)
        await asyncio.to_thread(end_orphan, self._record, self._folder)
        self._prepare()
        self._progress.step("starting MongoDB")
        self._child = await Child.start(
            self._command(mongod),
            record=self._record,
            log=self._log,
            environment=libraries.environment(self._folder / "libraries"),
        )
        try:
            await self._until_primary(self._child)
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
        return self._folder / "mongo"

    @property
    def _record(self) -> Path:
        return self._folder / "pids" / "mongo.json"

    @property
    def _log(self) -> Path:
        return self._folder / "logs" / "mongo.log"

    def _prepare(self) -> None:
        if not self._port:
            self._port = self._wanted_port or ports.remembered(self._folder / "mongo.port")
        if not ports.is_free(self._port):
            raise PortTaken("MongoDB", self._port, "stop that program or give another port")

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

    async def _until_primary(self, child: Child) -> None:
        # The driver takes 0.2 s to import; by now mongod is starting meanwhile.
        from services.embedded.mongo_probe import connect, is_primary  # noqa: PLC0415

        deadline = time.monotonic() + READY_SECONDS
        async with connect(self._port) as client:
            while not await is_primary(client, self._port):
                if child.exit_code is not None:
                    raise DidNotStart("MongoDB", self._why(child.exit_code), self._log)
                if time.monotonic() > deadline:
                    raise DidNotStart("MongoDB", f"not ready in {READY_SECONDS:.0f} s", self._log)
                await asyncio.sleep(0.02)

    def _why(self, code: int) -> str:
        """The loader's complaint if a library is missing, which a package can mend; else the exit code."""
        for line in reversed(self._log.read_text(errors="replace").splitlines()[-20:]):
            if "error while loading shared libraries:" in line:
                return line.partition("libraries: ")[2] + ", install the package that has it"
        return f"it ended with code {code}"


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
