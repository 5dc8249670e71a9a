import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from services.embedded import jars
from services.embedded import kafka as kafka_module
from services.embedded.children import start_time
from services.embedded.console import Silent
from services.embedded.errors import DidNotStart, FolderNotWritable, PortTaken
from services.embedded.kafka import EmbeddedKafka, KafkaInstallation, ensure_startup_cache, install

Start = Callable[[], Awaitable[EmbeddedKafka]]


async def test_restart_in_the_same_folder_keeps_port_and_topics(tmp_path: Path) -> None:
    async with EmbeddedKafka(tmp_path) as kafka:
        port = kafka.bootstrap
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic("x", 2, 1)])
        await admin.close()
        pid = kafka.pid
    assert pid is not None
    assert start_time(pid) == ""
    async with EmbeddedKafka(tmp_path) as kafka:
        assert kafka.bootstrap == port
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
        await consumer.start()
        assert await consumer.topics() == {"x"}
        await consumer.stop()


async def test_session_is_short_after_a_kill_alone(tmp_path: Path) -> None:
    """The next process registers only when the session of a killed one has timed out; heartbeats cost CPU at rest."""
    timeouts = []
    kafka = EmbeddedKafka(tmp_path)
    for end in (kafka.stop, kafka.kill, kafka.kill, kafka.stop, kafka.stop):
        await kafka.start()
        lines = dict(line.split("=") for line in (tmp_path / "kafka.properties").read_text().splitlines())
        timeouts.append(int(lines["broker.session.timeout.ms"]))
        assert 2 * int(lines["broker.heartbeat.interval.ms"]) <= timeouts[-1]
        await end()
    assert timeouts == [9_000, 9_000, 2_000, 2_000, 9_000]


async def test_unknown_topic_is_not_created(own_kafka: Start) -> None:
    kafka = await own_kafka()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, request_timeout_ms=500) as producer:
        with pytest.raises(Exception, match=r"UnknownTopicOrPartition|KafkaTimeout"):
            await producer.send_and_wait("unknown", b"1")


async def test_record_of_a_mebibyte_is_accepted(own_kafka: Start) -> None:
    kafka = await own_kafka()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("x", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=2 << 20) as producer:
        await producer.send_and_wait("x", b"1" * (1 << 20))


async def test_folders_have_different_clusters(own_kafka: Start) -> None:
    one, other = await own_kafka(), await own_kafka()
    assert one.bootstrap != other.bootstrap
    ids = set()
    for cluster in (one, other):
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        ids.add((await admin.describe_cluster())["cluster_id"])
        await admin.close()
    assert len(ids) == 2


async def test_used_port_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"^Apache Kafka can't listen on port {port}, another program uses it: "):
            await EmbeddedKafka(tmp_path, port).start()


async def test_folder_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderNotWritable, match=r"choose another folder with --data$"):
        await EmbeddedKafka(tmp_path / "file").start()


async def test_failed_start_names_the_log(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=77\n")
    with pytest.raises(DidNotStart, match=rf"^Apache Kafka did not start \(it exited with code 1\): see {tmp_path}"):
        await EmbeddedKafka(tmp_path).start()
    assert "77" in (tmp_path / "logs" / "kafka.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_memory_stays_below_250_mb(own_kafka: Start) -> None:
    kafka = await own_kafka()
    status = await asyncio.to_thread(Path(f"/proc/{kafka.pid}/status").read_text)
    resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    assert resident < 250 * 1024


class RecordingStub:
    """Stub of the run that records the loaded classes."""

    def __init__(self, *, fails: bool) -> None:
        self.count = 0
        self._fails = fails

    async def __call__(self, _: KafkaInstallation, folder: Path, recorded: Path) -> None:
        self.count += 1
        if self._fails:
            raise DidNotStart("Apache Kafka", "of this test", folder / "log")
        await asyncio.to_thread(recorded.write_text, "loaded classes")


@pytest.fixture
async def installation(tmp_path: Path) -> KafkaInstallation:
    """An installation whose Java does nothing."""
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 0\n")
    java.chmod(0o755)
    return KafkaInstallation(java, [], tmp_path)


async def ensure_twice(
    installation: KafkaInstallation, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> RecordingStub:
    stub = RecordingStub(fails=fails)
    monkeypatch.setattr(kafka_module, "record_classes", stub)
    for _ in range(2):
        await ensure_startup_cache(installation, Silent(), heap_mb=64)
    return stub


async def test_startup_cache_is_built_once(installation: KafkaInstallation, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'for word; do case "$word" in -XX:AOTCache=*) echo built > "${word#*=}";; esac; done'
    installation.java.write_text(f"#!/bin/sh\n{script}\n")
    stub = await ensure_twice(installation, monkeypatch, fails=False)
    assert installation.startup_cache.read_text() == "built\n"
    assert stub.count == 1


@pytest.mark.parametrize("fails", [True, False], ids=["recording fails", "Java builds no cache"])
async def test_failed_startup_cache_is_not_tried_again(
    installation: KafkaInstallation, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    stub = await ensure_twice(installation, monkeypatch, fails=fails)
    assert installation.startup_cache.read_bytes() == b""
    assert stub.count == 1


async def test_kafka_starts_without_a_startup_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = await install(Silent())
    folder = tmp_path / "installation"
    folder.mkdir()
    monkeypatch.setattr(jars, "installation", lambda: folder)
    (folder / "jars").symlink_to(real.folder / "jars")
    (folder / "formatted").symlink_to(real.folder / "formatted")
    (folder / real.startup_cache.name).touch()
    async with EmbeddedKafka(tmp_path / "data") as server:
        assert server.pid
