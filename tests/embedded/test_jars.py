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
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("content-length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


class ShutdownSignal(Silent):
    """A progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.bytes: list[tuple[int, int]] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def download(self, what: str, done: int, total: int) -> None:
        assert what == "Apache Kafka"
        self.bytes.append((done, total))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Repository]]:
    """Two jars, locked, and a place to download them from."""
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
    Repository.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Repository) as server:
        monkeypatch.setattr(jgo.constants, "MAVEN_CENTRAL_URL", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Repository
        server.shutdown()
        thread.join()


def test_jars_are_downloaded_once_in_class_path_order(repository: type[Repository]) -> None:
    told = ShutdownSignal()
    paths = jars.install(told)
    assert [path.read_bytes() for path in paths] == [ONE, TWO]
    assert told.steps == ["downloading Apache Kafka (once)"]
    assert told.bytes[-1] == (len(ONE) + len(TWO), len(ONE) + len(TWO))
    repository.asked.clear()
    assert jars.install(told) == paths
    assert repository.asked == []


def test_a_jar_that_is_not_the_locked_one_is_refused_and_not_kept(repository: type[Repository]) -> None:
    repository.files["/org/x/two/1/two-1.jar"] = b"something else"
    with pytest.raises(JarsMissing, match=r"two-1\.jar: what arrived is not what jgo\.lock\.toml names"):
        jars.install(Silent())
    repository.files["/org/x/two/1/two-1.jar"] = TWO
    assert [path.read_bytes() for path in jars.install(Silent())] == [ONE, TWO]


def test_a_download_that_was_cut_short_is_made_again(repository: type[Repository]) -> None:
    half = jars.cache_folder() / "maven" / "org" / "x" / "one" / "1" / "one-1.jar"
    half.parent.mkdir(parents=True)
    half.write_bytes(ONE[:100])
    assert [path.read_bytes() for path in jars.install(Silent())] == [ONE, TWO]


# jgo leaves a refused answer to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_without_a_repository_one_line_says_what_to_do(repository: type[Repository]) -> None:
    repository.files.clear()
    with pytest.raises(JarsMissing) as refusal:
        jars.install(Silent())
    line = str(refusal.value)
    assert re.match(r"can't get Apache Kafka's jars \(one-1\.jar: .*\): try again", line)
    assert line.endswith("or set NEST_KAFKA_BOOTSTRAP to a Kafka of your own")
    assert "\n" not in line
    gc.collect()


def test_a_download_that_was_given_up_ends_and_can_be_begun_again(repository: type[Repository]) -> None:
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(JarsMissing, match="interrupted"):
        jars.install(Silent(), given_up)
    assert [path.read_bytes() for path in jars.install(Silent())] == [ONE, TWO]


def test_two_first_starts_at_once_download_once(repository: type[Repository]) -> None:
    threads = [threading.Thread(target=jars.install, args=(Silent(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(path.endswith("one-1.jar") for path in repository.asked) == 1


def test_the_lock_names_every_wanted_jar_with_its_sum_and_no_host() -> None:
    wanted = tomllib.loads(jars.WANTED.read_text())["dependencies"]["coordinates"]
    locked = {f"{jar.group}:{jar.name}:{jar.version}" for jar in jars.locked()}
    assert set(wanted) <= locked
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size for jar in jars.locked())
    assert "://" not in jars.LOCKED.read_text() + jars.WANTED.read_text()
