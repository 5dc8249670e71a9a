"""Reading and following of a topic, also after failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from services.embedded.kafka import EmbeddedKafka
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import BusDown, Producer
from shared.bus.record_macs import RecordMacs
from shared.bus.topic_reader import TopicReader
from shared.sealing import Sealer
from tests.stack import eventually

TOPIC, SECOND_TOPIC = "followed", "followed-too"
SEALER = Sealer({"k1": bytes(32)})


def macs_of(topic: str) -> RecordMacs:
    """MACs of a deployment with this topic, given with its prefix."""
    return RecordMacs(SEALER, prefix=topic.removesuffix(TOPIC))


class Listener:
    """Callback that collects the records."""

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
async def second_topic(topic_prefix: str, kafka_admin: AIOKafkaAdminClient) -> str:
    await kafka_admin.create_topics([NewTopic(topic_prefix + SECOND_TOPIC, 1, 1)])
    return topic_prefix + SECOND_TOPIC


@pytest.fixture
async def producer(kafka_bootstrap: str, topic_prefix: str, topic: str) -> AsyncIterator[Producer]:
    producer = Producer(KafkaConnection(kafka_bootstrap), macs=macs_of(topic), prefix=topic_prefix)
    await producer.start()
    yield producer
    await producer.stop()


async def send(producer: Producer, *values: str, topic: str = TOPIC, partition: int = 0) -> None:
    for value in values:
        await producer.send_record(topic, value.encode(), [], partition=partition)


async def test_existing_records_are_read_before_the_start_returns(
    kafka_bootstrap: str, topic: str, producer: Producer
) -> None:
    await send(producer, *map(str, range(1000)))
    await send(producer, "a", "b", partition=1)
    listener = Listener()
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic))
    await reader.follow({topic: listener})
    assert reader.following
    assert len(listener.records) == 1002
    assert [record.value for record in listener.records if record.partition == 1] == [b"a", b"b"]
    await send(producer, "later")
    await eventually(lambda: b"later" in listener.values)
    await reader.stop()
    assert not reader.following


async def test_an_empty_topic_is_followed(kafka_bootstrap: str, topic: str, producer: Producer) -> None:
    listener = Listener()
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic))
    await reader.follow({topic: listener})
    await send(producer, "first")
    await eventually(lambda: listener.values == [b"first"])
    await reader.stop()


async def test_from_the_end_existing_records_are_skipped(kafka_bootstrap: str, topic: str, producer: Producer) -> None:
    await send(producer, "old")
    listener = Listener()
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic), from_end=True)
    await reader.follow({topic: listener})
    await send(producer, "new")
    await eventually(lambda: listener.values)
    assert listener.values == [b"new"]
    await reader.stop()


async def test_only_the_given_partitions_are_read(kafka_bootstrap: str, topic: str, producer: Producer) -> None:
    await send(producer, "elsewhere", partition=0)
    await send(producer, "here", partition=1)
    listener = Listener()
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic), partitions=[1])
    await reader.follow({topic: listener})
    assert listener.values == [b"here"]
    await reader.stop()


async def test_a_tombstone_is_passed_on_with_a_null_value(kafka_bootstrap: str, topic: str, producer: Producer) -> None:
    await producer.send_record(TOPIC, None, [], key=b"gone")
    listener = Listener()
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic))
    await reader.follow({topic: listener})
    assert [(record.key, record.value) for record in listener.records] == [(b"gone", None)]
    await reader.stop()


async def test_an_exception_of_the_callback_does_not_stop_the_reader(
    kafka_bootstrap: str, topic: str, producer: Producer
) -> None:
    await send(producer, "good", "bad", "good")
    values: list[bytes] = []

    def on_record(record: ConsumerRecord) -> None:
        if record.value == b"bad":
            raise ValueError("bad")
        values.append(record.value)

    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic))
    await reader.follow({topic: on_record})
    assert values == [b"good", b"good"]
    await reader.stop()


async def test_an_end_offset_without_a_record_before_it_is_reached(
    kafka_bootstrap: str, topic: str, producer: Producer
) -> None:
    """The marker of a transaction has an offset and is not returned as a record; compaction has the same effect."""
    async with (
        AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=topic) as transactional,
        transactional.transaction(),
    ):
        headers = macs_of(topic).signed(TOPIC, None, b"one", [])
        await transactional.send_and_wait(topic, b"one", partition=0, headers=headers)
    listener = Listener()
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic), silence_seconds=0.1)
    await reader.follow({topic: listener}, within=10)
    assert listener.values == [b"one"]
    await send(producer, "two")
    await eventually(lambda: listener.values == [b"one", b"two"])
    await reader.stop()


async def test_topics_that_are_added_share_the_consumer(
    kafka_bootstrap: str, topic: str, second_topic: str, producer: Producer
) -> None:
    first, second = Listener(), Listener()
    await send(producer, "a")
    await send(producer, "b", topic=SECOND_TOPIC)
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic))
    await reader.follow({topic: first})
    sending = asyncio.create_task(send(producer, *map(str, range(500))))
    await reader.follow({second_topic: second})
    await sending
    await send(producer, "c", topic=SECOND_TOPIC)
    await eventually(lambda: second.values == [b"b", b"c"])
    await eventually(lambda: len(first.values) == 501)
    assert first.values == [b"a", *(str(number).encode() for number in range(500))]
    assert reader._consumer is not None
    assert {partition.topic for partition in reader._consumer.assignment()} == {topic, second_topic}
    await reader.stop()


async def test_topics_are_followed_further_if_another_one_is_missing(
    kafka_bootstrap: str, topic: str, producer: Producer
) -> None:
    listener = Listener()
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic))
    await reader.follow({topic: listener})
    with pytest.raises(BusDown, match="nothing"):
        await reader.follow({topic + "-nothing": Listener()}, within=1)
    await send(producer, "later")
    await eventually(lambda: listener.values == [b"later"])
    assert reader.following
    await reader.stop()


async def test_a_missing_topic_raises_bus_down(kafka_bootstrap: str, topic_prefix: str) -> None:
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(TOPIC))
    with pytest.raises(BusDown, match="nothing"):
        await reader.follow({topic_prefix + "nothing": Listener()}, within=1)
    await reader.stop()


async def test_an_unreachable_kafka_raises_bus_down() -> None:
    reader = TopicReader(KafkaConnection("127.0.0.1:1"), macs=macs_of(TOPIC))
    with pytest.raises(BusDown):
        await reader.follow({TOPIC: Listener()}, within=3)


async def test_a_stuck_consumer_is_replaced(kafka_bootstrap: str, topic: str, producer: Producer) -> None:
    listener = Listener()
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic), silence_seconds=0.1)
    await reader.follow({topic: listener})
    await send(producer, "one")
    await eventually(lambda: listener.values == [b"one"])
    consumer = reader._consumer
    assert consumer is not None
    consumer.pause(*consumer.assignment())
    await send(producer, "two", "three")
    await eventually(lambda: listener.values == [b"one", b"two", b"three"])
    assert reader._consumer is not consumer
    await reader.stop()


async def test_a_stuck_partition_is_noticed_while_another_one_has_records(
    kafka_bootstrap: str, topic: str, producer: Producer
) -> None:
    listener = Listener()
    reader = TopicReader(KafkaConnection(kafka_bootstrap), macs=macs_of(topic), silence_seconds=0.1)
    await reader.follow({topic: listener})
    consumer = reader._consumer
    assert consumer is not None
    consumer.pause(TopicPartition(topic, 1))

    async def busy() -> None:
        while True:
            await send(producer, "busy")
            await asyncio.sleep(0.01)

    sending = asyncio.create_task(busy())
    try:
        await send(producer, "stuck", partition=1)
        await eventually(lambda: b"stuck" in listener.values)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await reader.stop()
    offsets = [record.offset for record in listener.records if record.partition == 0]
    assert offsets == list(range(len(offsets)))


@pytest.mark.slow
async def test_reading_continues_at_its_position_after_an_outage(
    own_kafka: Callable[[], Awaitable[EmbeddedKafka]],
) -> None:
    kafka = await own_kafka()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    await admin.close()
    producer = Producer(KafkaConnection(kafka.bootstrap), macs=macs_of(TOPIC), timeout=2)
    await producer.start()
    listeners = Listener(), Listener()
    readers = [
        TopicReader(KafkaConnection(kafka.bootstrap), macs=macs_of(TOPIC), from_end=from_end, silence_seconds=0.5)
        for from_end in (False, True)
    ]
    for reader, listener in zip(readers, listeners, strict=True):
        await reader.follow({TOPIC: listener})
    await send(producer, "before")
    before = kafka.pid
    await kafka.kill()
    for reader in readers:
        await eventually(lambda reader=reader: not reader.following)
    await kafka.start()
    assert kafka.pid != before

    async def sent() -> bool:
        try:
            await send(producer, "after")
        except BusDown:
            return False
        return True

    await eventually(sent)
    for reader, listener in zip(readers, listeners, strict=True):
        await eventually(lambda listener=listener: b"after" in listener.values, within=30)
        offsets = [record.offset for record in listener.records]
        assert offsets == list(range(len(offsets)))
        await eventually(lambda reader=reader: reader.following)
        await reader.stop()
    await producer.stop()
