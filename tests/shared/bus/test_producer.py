import asyncio
import gc
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from aiokafka.producer.sender import Sender

from services.embedded import ports
from shared.bus.envelope import Envelope, encode
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import BusDown, Producer, _Partitioner
from shared.bus.record_macs import RecordMacs
from shared.messages.auth.signing_keys import SigningKeyWithdrawn
from shared.sealing import Sealer
from tests.shared.bus_harness import BusHarness
from tests.shared.inbox_harness import envelope
from tests.shared.sample_services import Append, Total


async def test_send_returns_when_the_record_is_on_kafka(bus: BusHarness) -> None:
    sent = envelope("1" * 32, key="k", body=b'{"a":1}', trace="00-1-2-01", reply_id="1" * 32)
    await bus.producer.send(sent)
    (record,) = await bus.records("ledger.commands")
    assert Envelope.of(record, "ledger.commands") == sent
    assert record.partition == await bus.partition_of("k")


async def test_a_tombstone_has_a_key_and_no_value(bus: BusHarness) -> None:
    withdrawn = SigningKeyWithdrawn(key="k")
    await bus.producer.send(envelope(key="k", body=encode(withdrawn, bus.sealer)))
    (record,) = await bus.records("ledger.commands")
    assert (record.key, record.value) == (b"k", None)


async def test_messages_of_one_send_keep_their_order(bus: BusHarness) -> None:
    await bus.producer.send(*(envelope(key="k", body=b"%d" % number) for number in range(200)))
    assert [record.value for record in await bus.records("ledger.commands")] == [
        b"%d" % number for number in range(200)
    ]


async def test_messages_that_are_sent_together_share_a_request(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Counter[str]()
    send = Sender._send_produce_req

    async def counted(sender: Sender, node: int, batches: Mapping[TopicPartition, object]) -> None:
        requests.update(partition.topic for partition in batches)
        await send(sender, node, batches)

    monkeypatch.setattr(Sender, "_send_produce_req", counted)
    await bus.producer.send(*(envelope(key="k", body=b"%d" % number + bytes(1500)) for number in range(256)))
    assert len(await bus.records("ledger.commands")) == 256
    assert requests == {f"{bus.prefix}ledger.commands": 1}


async def test_messages_larger_than_a_request_arrive_in_order(bus: BusHarness) -> None:
    await bus.producer.send(*(envelope(key="k", body=b"%4d" % number + bytes(100_000)) for number in range(25)))
    assert [int((record.value or b"")[:4]) for record in await bus.records("ledger.commands")] == list(range(25))


async def test_messages_without_a_key_are_spread_over_the_partitions(bus: BusHarness) -> None:
    await bus.producer.send(*(envelope() for _ in range(100)))
    assert {record.partition for record in await bus.records("ledger.commands")} == {0, 1, 2, 3}


async def test_queries_have_no_key_and_commands_without_one_have_their_id(bus: BusHarness) -> None:
    await bus.send(Total(subject="s", key="k"))
    command = await bus.send(Append(subject="s", number=1))
    query, other = sorted(await bus.records("ledger.commands"), key=lambda record: record.key or b"")
    assert (query.key, other.key) == (None, command.id.encode())


async def test_records_without_a_key_share_a_partition_for_a_millisecond_and_use_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    partitioner, used = _Partitioner(), Counter[int]()
    for millisecond in range(48_000):
        now = millisecond / 1000 + 0.0001
        first = partitioner(None, range(48), ())
        now += 0.0008
        assert partitioner(None, range(48), ()) == first
        used[first] += 1
    monkeypatch.undo()
    assert len(used) == 48
    assert max(used.values()) < 1.2 * 1_000


async def test_a_missing_topic_raises_bus_down_within_the_timeout(bus: BusHarness) -> None:
    producer = Producer(KafkaConnection(bus.bootstrap), macs=bus.macs, prefix=bus.prefix, timeout=0.5)
    await producer.start()
    try:
        started = time.monotonic()
        with pytest.raises(BusDown):
            await producer.send(envelope(topic="no.such.topic"))
        assert time.monotonic() - started < 10
        await producer.send(envelope())
    finally:
        await producer.stop()


async def test_a_too_large_record_raises_bus_down(bus: BusHarness) -> None:
    with pytest.raises(BusDown, match="TooLarge"):
        await bus.put_record("ledger.commands", b"x" * (3 << 20))
    await bus.producer.send(envelope())


async def test_a_cancelled_send_does_not_disturb_the_others_of_its_batch(bus: BusHarness) -> None:
    await bus.producer.send(envelope(key="k", body=b"first"))
    sends = [asyncio.create_task(bus.producer.send(envelope(key="k", body=b"%d" % number))) for number in range(3)]
    await asyncio.sleep(0)
    sends[1].cancel()
    done = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(each) for each in done] == [list, asyncio.CancelledError, list]
    await bus.producer.settle()
    assert [record.value for record in await bus.records("ledger.commands")] == [b"first", b"0", b"1", b"2"]


async def test_failures_that_nobody_asks_for_are_not_logged_as_lost(bus: BusHarness) -> None:
    lost: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: lost.append(context))
    try:
        with pytest.raises(BusDown, match="TooLarge"):
            await bus.producer.send(*(envelope(key=f"k{number}", body=bytes(3 << 19)) for number in range(8)))
        await bus.producer.settle()
        gc.collect()
    finally:
        # The event loop is that of the other tests too.
        loop.set_exception_handler(handler)
    assert lost == []


async def test_a_stopped_producer_raises_bus_down(bus: BusHarness) -> None:
    producer = Producer(KafkaConnection(bus.bootstrap), macs=bus.macs, prefix=bus.prefix)
    await producer.stop()
    with pytest.raises(BusDown, match="stopped"):
        await producer.send(envelope())


async def test_without_kafka_the_start_fails() -> None:
    producer = Producer(
        KafkaConnection(f"127.0.0.1:{ports.any_free()}"), macs=RecordMacs(Sealer({"k1": bytes(32)})), timeout=1
    )
    async with asyncio.timeout(20):
        with pytest.raises(KafkaConnectionError):
            await producer.start()


async def test_the_partitions_of_a_topic_are_sorted(bus: BusHarness) -> None:
    assert await bus.producer.partitions("ledger.commands") == [0, 1, 2, 3]
