"""Apache Kafka's jars: download, verification and installation.

`jgo.toml` names the wanted jars. `jgo.lock.toml` contains everything that they resolve to, with version, size and
SHA-256. jgo downloads a jar, which is compared with the lock and then moved to a folder that is named after the lock.
So if that folder exists, every jar in it was verified.
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

_CONCURRENT_DOWNLOADS = 8
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Jar:
    """A locked jar, with its size in bytes and its SHA-256 in lowercase hex."""

    group: str
    name: str
    version: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """File name in Maven repositories."""
        return f"{self.name}-{self.version}.jar"

    def matches(self, path: Path) -> bool:
        """Whether a file has the SHA-256 of this jar."""
        return hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256


def cache_folder() -> Path:
    """Return the folder for data that can be downloaded or built again: `$XDG_CACHE_HOME/nest` or `~/.cache/nest`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nest"


def locked() -> list[Jar]:
    """Return the locked jars in class path order."""
    rows: list[dict[str, Any]] = tomllib.loads(LOCKED.read_text())["dependencies"]
    return [Jar(row["groupId"], row["artifactId"], row["version"], row["size"], row["sha256"]) for row in rows]


def installation() -> Path:
    """Return the folder of the installed jars and of the files that are built from them."""
    return cache_folder() / f"kafka-{hashlib.sha256(LOCKED.read_bytes()).hexdigest()[:16]}"


def install(progress: Progress, cancelled: threading.Event | None = None) -> list[Path]:
    """Return the paths of all jars in class path order; download missing ones (45 MB the first time).

    Blocks, and ends soon after `cancelled` is set.

    Raises:
        JarsMissing: a jar could not be downloaded, or differs from the lock.
        FolderNotWritable: the cache folder cannot be written.
    """
    wanted, folder = locked(), installation()
    paths = [folder / "jars" / jar.file for jar in wanted]
    if folder.is_dir():
        return paths
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        # If two first starts run at once, the second waits and finds the jars installed.
        with (cache_folder() / "kafka.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                download = _Download(sum(jar.size for jar in wanted), progress, cancelled or threading.Event())
                progress.step(f"downloading Apache Kafka, {sum(jar.size for jar in wanted) // 10**6} MB (once)")
                _install(wanted, folder, download)
    except OSError as error:
        raise FolderNotWritable(cache_folder(), error.strerror or str(error)) from error
    return paths


def _install(wanted: list[Jar], folder: Path, download: "_Download") -> None:
    fetch = _fetcher(cache_folder() / "maven", download)
    with ThreadPoolExecutor(_CONCURRENT_DOWNLOADS) as pool:
        fetched = list(pool.map(fetch, wanted))
    half = folder.with_name(f"{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    (half / "jars").mkdir(parents=True)
    for jar, path in zip(wanted, fetched, strict=True):
        path.replace(half / "jars" / jar.file)
    half.rename(folder)
    shutil.rmtree(cache_folder() / "maven", ignore_errors=True)


def _fetcher(repository: Path, download: "_Download") -> Callable[[Jar], Path]:
    import requests  # noqa: PLC0415 - jgo and requests take 0.2 s, and only the very first start needs them
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415

    context = MavenContext(
        resolver=PythonResolver(progress_callback=download.track),
        repo_cache=repository,
        # Mirrors in jgo's settings file come first: a machine with a mirror often reaches nothing else.
        remote_repos={**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL},
        timeout=_TIMEOUT_SECONDS,
    )

    def fetch(jar: Jar) -> Path:
        artifact = context.project(jar.group, jar.name).at_version(jar.version).artifact()
        stored = repository / artifact.component.path_prefix / artifact.filename
        if stored.exists() and not jar.matches(stored):
            # jgo would use a truncated file of an interrupted run.
            stored.unlink()
        if stored.exists():
            download.add(jar.size)
            return stored
        try:
            path = Path(artifact.resolve())
        except (requests.RequestException, RuntimeError) as error:
            reason = str(error).partition("\n")[0][:160]
            raise JarsMissing(f"{jar.file}: {type(error).__name__}: {reason}") from error
        if not jar.matches(path):
            path.unlink()
            raise JarsMissing(f"{jar.file}: the download differs from jgo.lock.toml")
        return path

    return fetch


class _Download:
    """Progress of all concurrent downloads together."""

    def __init__(self, total: int, progress: Progress, cancelled: threading.Event) -> None:
        self._done, self._total, self._progress, self._cancelled = 0, total, progress, cancelled
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        if self._cancelled.is_set():
            raise JarsMissing("the download was interrupted")
        with self._lock:
            self._done = min(self._done + count, self._total)
            self._progress.download("Apache Kafka", self._done, self._total)

    @contextmanager
    def track(self, _name: str, _total: int) -> Iterator[Callable[[int], None]]:
        yield self.add


@asynccontextmanager
async def lock_file(file: Path) -> AsyncIterator[None]:
    """Hold an exclusive lock; wait for it without blocking the event loop."""
    with file.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(0.1)
            else:
                break
        yield
