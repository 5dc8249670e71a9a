import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from services.embedded.children import start_time
from services.embedded.errors import DidNotStart, FolderNotWritable, PortTaken
from services.embedded.kafka import EmbeddedKafka

Own = Callable[[], Awaitable[EmbeddedKafka]]


async def test_it_can_be_stopped_and_another_goes_on_in_its_folder(tmp_path: Path) -> None:
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


async def test_a_topic_is_never_made_by_accident(own_kafka: Own) -> None:
    kafka = await own_kafka()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, request_timeout_ms=500) as producer:
        with pytest.raises(Exception, match=r"UnknownTopicOrPartition|KafkaTimeout"):
            await producer.send_and_wait("nobody-made-it", b"1")


async def test_a_record_of_a_mebibyte_is_taken(own_kafka: Own) -> None:
    kafka = await own_kafka()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("x", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=2 << 20) as producer:
        await producer.send_and_wait("x", b"1" * (1 << 20))


async def test_two_folders_are_two_clusters(own_kafka: Own) -> None:
    one, other = await own_kafka(), await own_kafka()
    assert one.bootstrap != other.bootstrap
    ids = set()
    for kafka in (one, other):
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        ids.add((await admin.describe_cluster())["cluster_id"])
        await admin.close()
    assert len(ids) == 2


async def test_a_taken_port_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"^Apache Kafka can't listen on port {port}, another program has it: "):
            await EmbeddedKafka(tmp_path, port).start()


async def test_a_folder_that_cannot_be_written_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderNotWritable, match=r"give another folder with --data$"):
        await EmbeddedKafka(tmp_path / "file").start()


async def test_when_it_ends_at_once_its_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=77\n")
    with pytest.raises(DidNotStart, match=rf"^Apache Kafka did not start \(it ended with code 1\): see {tmp_path}"):
        await EmbeddedKafka(tmp_path).start()
    assert "77" in (tmp_path / "logs" / "kafka.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_it_stays_small(own_kafka: Own) -> None:
    kafka = await own_kafka()
    status = await asyncio.to_thread(Path(f"/proc/{kafka.pid}/status").read_text)
    resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    assert resident < 250 * 1024
