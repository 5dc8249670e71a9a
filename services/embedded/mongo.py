"""Embedded MongoDB: a replica set of one node, because only replica sets have transactions."""

import asyncio
import ctypes
import os
import platform
import shutil
import sys
from importlib import metadata, util
from pathlib import Path

from services.embedded import ports
from services.embedded.child_server import Server
from services.embedded.children import stop_orphan
from services.embedded.console import Progress
from services.embedded.errors import CannotStart
from services.embedded.folder import make_writable

SMALLEST_CACHE_GB = 0.25
"""The minimum that mongod accepts."""
_LIBRARIES = ("libcurl.so.4", "libssl.so.3", "libcrypto.so.3")
"""Libraries that the packaged mongod needs: a slim machine may lack libcurl, an older one OpenSSL 3."""


class EmbeddedMongo(Server):
    """A MongoDB replica set `rs0` of one node on loopback.

    Acknowledged writes survive `kill`. With `test_commands` tests can inject faults (`configureFailPoint`).
    `cache_gb` is the size of WiredTiger's cache in GiB.
    """

    NAME = "mongo"
    TITLE = "MongoDB"

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        *,
        test_commands: bool = False,
        cache_gb: float = SMALLEST_CACHE_GB,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(folder, port, progress)
        self._cache_gb = cache_gb
        self._test_commands = test_commands

    @property
    def url(self) -> str:
        """Connection string without a database, after the start."""
        # One node has no failover that a stream of its states would announce sooner; the stream costs CPU time at rest.
        return f"mongodb://{ports.LOOPBACK}:{self._port}/?replicaSet=rs0&serverMonitoringMode=poll"

    async def start(self) -> None:
        """Start or restart mongod with its port and data, and wait until it accepts writes."""
        mongod = find_mongod()
        make_writable(self._data)
        await asyncio.to_thread(stop_orphan, self._record, self._folder)
        self._reserve_port()
        self._progress.step("starting MongoDB")
        environment = mongod_environment(self._folder / "libraries")
        await self._run(self._command(mongod), self._until_primary, environment)

    def _command(self, mongod: Path) -> list[str | Path]:
        parameters = {
            "diagnosticDataCollectionEnabled": "false",
            # By default a stopped node waits 15 s for another one to take over.
            "shutdownTimeoutMillisForSignaledShutdown": "0",
            **({"enableTestCommands": "1"} if self._test_commands else {}),
        }
        return [
            mongod,
            *("--replSet", "rs0"),
            *("--dbpath", self._data),
            *("--bind_ip", ports.LOOPBACK),
            *("--port", str(self._port)),
            *("--wiredTigerCacheSizeGB", str(self._cache_gb)),
            # By default a twentieth of the disk.
            *("--oplogSize", "256"),
            "--nounixsocket",
            "--quiet",
            *(word for name, value in parameters.items() for word in ("--setParameter", f"{name}={value}")),
        ]

    async def _until_primary(self) -> None:
        # Importing the driver takes 0.2 s; mongod starts meanwhile.
        from services.embedded.mongo_probe import connect, is_primary  # noqa: PLC0415

        async with connect(self._port) as client:
            await self._until(lambda: is_primary(client, self._port))

    def _exit_reason(self, code: int) -> str:
        for line in reversed(self._log.read_text(errors="replace").splitlines()[-20:]):
            if "error while loading shared libraries:" in line:
                return line.partition("libraries: ")[2] + ", install the package that contains it"
        return super()._exit_reason(code)


def find_mongod() -> Path:
    """Return the `mongod` of the package that contains one (Linux on x86-64), otherwise the one on the PATH.

    Raises:
        CannotStart: there is neither.
    """
    if sys.platform == "linux" and platform.machine() == "x86_64":
        # Located without an import, because the package starts processes when it is imported.
        package = util.find_spec("fiftyone")
        for folder in (package.submodule_search_locations or []) if package else []:
            packaged = Path(folder) / "db" / "bin" / "mongod"
            if packaged.exists():
                return packaged
    on_path = shutil.which("mongod")
    if on_path is None:
        raise CannotStart(
            "there is no mongod for this platform: install MongoDB 6 or later so that mongod is on the PATH,"
            " or set NEST_MONGO_URL to your own MongoDB replica set"
        )
    return Path(on_path)


def mongod_environment(links: Path) -> dict[str, str]:
    """Return the environment of mongod; if the machine lacks a library, with those of pycurl's wheel.

    Args:
        links: folder for links to the libraries, whose names in the wheel contain a hash.
    """
    packaged = [] if sys.platform != "linux" or all(map(_is_loadable, _LIBRARIES)) else _packaged_libraries()
    if not packaged:
        # If a library is missing everywhere, mongod names it.
        return dict(os.environ)
    links.mkdir(parents=True, exist_ok=True)
    for name in _LIBRARIES:
        for library in packaged:
            if library.name.startswith(f"{name.partition('.so')[0]}-"):
                (links / name).unlink(missing_ok=True)
                (links / name).symlink_to(library)
    paths = [str(links), str(packaged[0].parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)}


def _is_loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _packaged_libraries() -> list[Path]:
    """Return the libraries in pycurl's wheel; none if it is not installed, or was built on this machine."""
    try:
        files = metadata.files("pycurl") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.parts[0] == "pycurl.libs"]
