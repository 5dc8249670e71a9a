import gc
import hashlib
import re
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import jgo.constants
import pytest

from services.embedded import jars
from services.embedded.console import Silent
from services.embedded.errors import JarsMissing

ONE, TWO = b"the first jar" * 1000, b"the second jar" * 1000


class Repository(BaseHTTPRequestHandler):
    """A Maven repository on loopback."""

    files: ClassVar[dict[str, bytes]] = {}
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("content-length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


class Recorder(Silent):
    """A progress that records its calls."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.bytes: list[tuple[int, int]] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def download(self, name: str, done: int, total: int) -> None:
        assert name == "Apache Kafka"
        self.bytes.append((done, total))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Repository]]:
    """A repository with two locked jars."""
    rows = "".join(
        f'[[dependencies]]\ngroupId = "org.x"\nartifactId = "{name}"\nversion = "1"\n'
        f'size = {len(content)}\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        for name, content in (("one", ONE), ("two", TWO))
    )
    lock = tmp_path / "jgo.lock.toml"
    lock.write_text(rows)
    monkeypatch.setattr(jars, "LOCKED", lock)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JGO_CONFIG_FILE", str(tmp_path / "none"))
    Repository.files = {"/org/x/one/1/one-1.jar": ONE, "/org/x/two/1/two-1.jar": TWO}
    Repository.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Repository) as server:
        monkeypatch.setattr(jgo.constants, "MAVEN_CENTRAL_URL", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Repository
        server.shutdown()
        thread.join()


def test_jars_are_downloaded_once_in_class_path_order(repository: type[Repository]) -> None:
    progress = Recorder()
    paths = jars.install(progress)
    assert [path.read_bytes() for path in paths] == [ONE, TWO]
    assert progress.steps == ["downloading Apache Kafka, 0 MB (once)"]
    assert progress.bytes[-1] == (len(ONE) + len(TWO), len(ONE) + len(TWO))
    repository.requests.clear()
    assert jars.install(progress) == paths
    assert repository.requests == []


def test_jar_that_differs_from_the_lock_is_deleted(repository: type[Repository]) -> None:
    repository.files["/org/x/two/1/two-1.jar"] = b"something else"
    with pytest.raises(JarsMissing, match=r"two-1\.jar: the download differs from jgo\.lock\.toml"):
        jars.install(Silent())
    repository.files["/org/x/two/1/two-1.jar"] = TWO
    assert [path.read_bytes() for path in jars.install(Silent())] == [ONE, TWO]


def test_truncated_download_is_repeated(repository: type[Repository]) -> None:
    half = jars.cache_folder() / "maven" / "org" / "x" / "one" / "1" / "one-1.jar"
    half.parent.mkdir(parents=True)
    half.write_bytes(ONE[:100])
    assert [path.read_bytes() for path in jars.install(Silent())] == [ONE, TWO]


# jgo does not close the response of a failed request.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_without_a_repository_the_error_is_one_line_with_a_remedy(repository: type[Repository]) -> None:
    repository.files.clear()
    with pytest.raises(JarsMissing) as error:
        jars.install(Silent())
    line = str(error.value)
    assert re.match(r"can't get Apache Kafka's jars \(one-1\.jar: .*\): try again", line)
    assert line.endswith("or set NEST_KAFKA_BOOTSTRAP to your own Kafka")
    assert "\n" not in line
    gc.collect()


def test_cancelled_download_ends_and_can_be_repeated(repository: type[Repository]) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(JarsMissing, match="interrupted"):
        jars.install(Silent(), cancelled)
    assert [path.read_bytes() for path in jars.install(Silent())] == [ONE, TWO]


def test_concurrent_first_starts_download_once(repository: type[Repository]) -> None:
    threads = [threading.Thread(target=jars.install, args=(Silent(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(path.endswith("one-1.jar") for path in repository.requests) == 1


def test_lock_has_every_jar_with_its_checksum_and_no_host() -> None:
    wanted = tomllib.loads(jars.WANTED.read_text())["dependencies"]["coordinates"]
    locked = {f"{jar.group}:{jar.name}:{jar.version}" for jar in jars.locked()}
    assert set(wanted) <= locked
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size for jar in jars.locked())
    assert "://" not in jars.LOCKED.read_text() + jars.WANTED.read_text()
