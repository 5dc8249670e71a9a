"""Where are Apache Kafka's jars, and are they the ones we locked?

`jgo.toml` says what we want, `jgo.lock.toml` what that resolves to: each jar's version, size and SHA-256.
A jar is downloaded by jgo, checked against the lock, and only then linked into a folder named for the lock;
so that folder's existence says that every jar in it was checked.
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
import threading
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.embedded.console import Progress
from services.embedded.errors import FolderNotWritable, JarsMissing

WANTED = Path(__file__).with_name("jgo.toml")
LOCKED = Path(__file__).with_name("jgo.lock.toml")

_DOWNLOADS_AT_ONCE = 8
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Jar:
    """One jar as the lock describes it."""

    group: str
    name: str
    version: str
    size: int
    """Bytes."""
    sha256: str
    """Lowercase hex."""

    @property
    def file(self) -> str:
        """The file name that Maven repositories give it."""
        return f"{self.name}-{self.version}.jar"


def cache_folder() -> Path:
    """Nest's folder for what can be fetched or made again: `$XDG_CACHE_HOME/nest`, else `~/.cache/nest`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nest"


def locked() -> list[Jar]:
    """The jars of the lock, in its order, which is the class path's order."""
    rows: list[dict[str, Any]] = tomllib.loads(LOCKED.read_text())["dependencies"]
    return [Jar(row["groupId"], row["artifactId"], row["version"], row["size"], row["sha256"]) for row in rows]


def installation() -> Path:
    """The folder that holds the locked jars once they are installed, and what was made from them."""
    return cache_folder() / f"kafka-{hashlib.sha256(LOCKED.read_bytes()).hexdigest()[:16]}"


def install(progress: Progress, given_up: threading.Event | None = None) -> list[Path]:
    """The paths of all jars, in class path order; downloads what is missing (44 MB the first time).

    Blocks; ends soon after `given_up` is set.

    Raises:
        JarsMissing: one could not be downloaded, or its sum is not the locked one.
        FolderNotWritable: the cache folder can't be written.
    """
    wanted, folder = locked(), installation()
    paths = [folder / "jars" / jar.file for jar in wanted]
    if folder.is_dir():
        return paths
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(cache_folder() / "kafka.lock"):
            if not folder.is_dir():
                arrived = _Arrived(sum(jar.size for jar in wanted), progress, given_up or threading.Event())
                progress.step("downloading Apache Kafka (once)")
                _install(wanted, folder, arrived)
    except OSError as error:
        raise FolderNotWritable(cache_folder(), error.strerror or str(error)) from error
    return paths


def _install(wanted: list[Jar], folder: Path, arrived: "_Arrived") -> None:
    fetch = _fetcher(cache_folder() / "maven", arrived)
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        fetched = list(pool.map(fetch, wanted))
    half = folder.with_name(f"{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    (half / "jars").mkdir(parents=True)
    for jar, path in zip(wanted, fetched, strict=True):
        path.replace(half / "jars" / jar.file)
    half.rename(folder)
    shutil.rmtree(cache_folder() / "maven", ignore_errors=True)


def _fetcher(repository: Path, arrived: "_Arrived") -> Callable[[Jar], Path]:
    import requests  # noqa: PLC0415 - jgo and requests take 0.2 s, and only the very first start needs them
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415

    context = MavenContext(
        resolver=PythonResolver(progress_callback=arrived.of_file),
        repo_cache=repository,
        # A person's own mirror (jgo's settings file) is asked first: who has one, often has nothing else.
        remote_repos={**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL},
        timeout=_TIMEOUT_SECONDS,
    )

    def fetch(jar: Jar) -> Path:
        artifact = context.project(jar.group, jar.name).at_version(jar.version).artifact()
        stored = repository / artifact.component.path_prefix / artifact.filename
        if stored.exists() and not _is(jar, stored):
            # An interrupted run leaves a cut-off file, which jgo would take for the whole one.
            stored.unlink()
        if stored.exists():
            arrived.add(jar.size)
            return stored
        try:
            path = Path(artifact.resolve())
        except (requests.RequestException, RuntimeError) as error:
            raise JarsMissing(f"{jar.file}: {_first_line(error)}") from error
        if not _is(jar, path):
            path.unlink()
            raise JarsMissing(f"{jar.file}: what arrived is not what jgo.lock.toml names")
        return path

    return fetch


def _is(jar: Jar, path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256


def _first_line(error: Exception) -> str:
    return type(error).__name__ + ": " + str(error).partition("\n")[0][:160]


class _Arrived:
    """Counts bytes over all downloads, which run in threads."""

    def __init__(self, total: int, progress: Progress, given_up: threading.Event) -> None:
        self._done, self._total, self._progress, self._given_up = 0, total, progress, given_up
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        if self._given_up.is_set():
            raise JarsMissing("the download was interrupted")
        with self._lock:
            self._done = min(self._done + count, self._total)
            self._progress.download("Apache Kafka", self._done, self._total)

    @contextmanager
    def of_file(self, _name: str, _total: int) -> Iterator[Callable[[int], None]]:
        yield self.add


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Two first starts at once would write the same files; the second waits and finds them done."""
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def locked_file(lock: Path) -> AsyncIterator[None]:
    """The same for work that takes its time: waits without blocking the event loop."""
    with lock.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(0.1)
            else:
                break
        yield
