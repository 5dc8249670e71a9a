"""Everything on a topic is heard, by every instance, whatever becomes of the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from services.embedded.kafka import EmbeddedKafka
from shared.bus.producer import BusDown, Producer
from shared.bus.topic_reader import TopicReader
from tests.stack import eventually

TOPIC = "told"


class Listener:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.records: list[ConsumerRecord] = []

    def __call__(self, record: ConsumerRecord) -> None:
        self.records.append(record)

    @property
    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]


@pytest.fixture
async def topic(topic_prefix: str, kafka_admin: AIOKafkaAdminClient) -> str:
    await kafka_admin.create_topics([NewTopic(topic_prefix + TOPIC, 2, 1)])
    return topic_prefix + TOPIC


@pytest.fixture
async def producer(kafka_bootstrap: str, topic_prefix: str, topic: str) -> AsyncIterator[Producer]:
    producer = Producer(kafka_bootstrap, prefix=topic_prefix)
    await producer.start()
    yield producer
    await producer.stop()


async def say(producer: Producer, *values: str, partition: int = 0) -> None:
    for value in values:
        await producer.send_record(TOPIC, value.encode(), [], partition=partition)


async def test_existing_records_are_read_before_the_start_returns(
    kafka_bootstrap: str, topic: str, producer: Producer
) -> None:
    await say(producer, *map(str, range(1000)))
    await say(producer, "a", "b", partition=1)
    listener = Listener()
    tail = TopicReader(kafka_bootstrap, topic, listener)
    await tail.start()
    assert tail.following
    assert len(listener.records) == 1002
    assert [record.value for record in listener.records if record.partition == 1] == [b"a", b"b"]
    await say(producer, "later")
    await eventually(lambda: b"later" in listener.values)
    await tail.stop()
    assert not tail.following


async def test_an_empty_topic_is_followed(kafka_bootstrap: str, topic: str, producer: Producer) -> None:
    listener = Listener()
    tail = TopicReader(kafka_bootstrap, topic, listener)
    await tail.start(within=5)
    await say(producer, "first")
    await eventually(lambda: listener.values == [b"first"])
    await tail.stop()


async def test_from_the_end_existing_records_are_skipped(
    kafka_bootstrap: str, topic: str, producer: Producer
) -> None:
    await say(producer, "old")
    listener = Listener()
    tail = TopicReader(kafka_bootstrap, topic, listener, from_end=True)
    await tail.start()
    await say(producer, "new")
    await eventually(lambda: listener.values)
    assert listener.values == [b"new"]
    await tail.stop()


async def test_only_the_given_partitions_are_read(kafka_bootstrap: str, topic: str, producer: Producer) -> None:
    await say(producer, "elsewhere", partition=0)
    await say(producer, "here", partition=1)
    listener = Listener()
    tail = TopicReader(kafka_bootstrap, topic, listener, partitions=[1])
    await tail.start()
    assert listener.values == [b"here"]
    await tail.stop()


async def test_a_tombstone_is_passed_on_with_a_null_value(kafka_bootstrap: str, topic: str, producer: Producer) -> None:
    await producer.send_record(TOPIC, None, [], key=b"gone")
    listener = Listener()
    tail = TopicReader(kafka_bootstrap, topic, listener)
    await tail.start()
    assert [(record.key, record.value) for record in listener.records] == [(b"gone", None)]
    await tail.stop()


async def test_an_exception_of_the_callback_does_not_stop_the_reader(
    kafka_bootstrap: str, topic: str, producer: Producer
) -> None:
    await say(producer, "good", "bad", "good")
    heard: list[bytes] = []

    def take(record: ConsumerRecord) -> None:
        if record.value == b"bad":
            raise ValueError("bad")
        heard.append(record.value)

    tail = TopicReader(kafka_bootstrap, topic, take)
    await tail.start()
    assert heard == [b"good", b"good"]
    await tail.stop()


async def test_an_end_offset_without_a_record_before_it_is_reached(
    kafka_bootstrap: str, topic: str, producer: Producer
) -> None:
    """A transaction's marker takes an offset and is no record, as after compaction there is none."""
    async with (
        AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=topic) as transactional,
        transactional.transaction(),
    ):
        await transactional.send_and_wait(topic, b"one", partition=0)
    listener = Listener()
    tail = TopicReader(kafka_bootstrap, topic, listener, silence_seconds=0.1)
    await tail.start(within=10)
    assert listener.values == [b"one"]
    await say(producer, "two")
    await eventually(lambda: listener.values == [b"one", b"two"])
    await tail.stop()


async def test_a_missing_topic_raises_bus_down(kafka_bootstrap: str, topic_prefix: str) -> None:
    tail = TopicReader(kafka_bootstrap, topic_prefix + "nothing", Listener())
    with pytest.raises(BusDown, match="nothing"):
        await tail.start(within=1)
    await tail.stop()


async def test_an_unreachable_kafka_raises_bus_down() -> None:
    tail = TopicReader("127.0.0.1:1", TOPIC, Listener())
    with pytest.raises(BusDown):
        await tail.start(within=3)


async def test_a_stuck_consumer_is_replaced(kafka_bootstrap: str, topic: str, producer: Producer) -> None:
    listener = Listener()
    tail = TopicReader(kafka_bootstrap, topic, listener, silence_seconds=0.1)
    await tail.start()
    await say(producer, "one")
    await eventually(lambda: listener.values == [b"one"])
    consumer = tail._consumer
    assert consumer is not None
    consumer.pause(*consumer.assignment())
    await say(producer, "two", "three")
    await eventually(lambda: listener.values == [b"one", b"two", b"three"])
    assert tail._consumer is not consumer
    await tail.stop()


async def test_reading_continues_at_its_position_after_an_outage(own_kafka: Callable[[], Awaitable[EmbeddedKafka]]) -> None:
    kafka = await own_kafka()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    await admin.close()
    producer = Producer(kafka.bootstrap, timeout=2)
    await producer.start()
    listeners = Listener(), Listener()
    tails = [
        TopicReader(kafka.bootstrap, TOPIC, listener, from_end=from_end, silence_seconds=0.5)
        for listener, from_end in zip(listeners, (False, True), strict=True)
    ]
    for tail in tails:
        await tail.start()
    await say(producer, "before")
    before = kafka.pid
    await kafka.kill()
    for tail in tails:
        await eventually(lambda tail=tail: not tail.following)
    await kafka.start()
    assert kafka.pid != before

    async def said() -> bool:
        try:
            await say(producer, "after")
        except BusDown:
            return False
        return True

    await eventually(said)
    for tail, listener in zip(tails, listeners, strict=True):
        await eventually(lambda listener=listener: b"after" in listener.values, within=30)
        offsets = [record.offset for record in listener.records]
        assert offsets == list(range(len(offsets)))
        await eventually(lambda tail=tail: tail.following)
        await tail.stop()
    await producer.stop()
