"""Fetches: their waits, short while records arrive and long in an idle topic, and the partitions that they name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v6, FetchResponse_v11

from shared.bus.aiokafka_patch import patch_aiokafka
from shared.bus.fetch_sessions import FetchSession, SessionFetch
from shared.bus.fetcher import FIRST_WAIT_MILLISECONDS, fetched_end
from tests.stack import eventually

LONGEST = 4 * FIRST_WAIT_MILLISECONDS


@pytest.fixture
def waits() -> list[int]:
    """The waits of the consumer's fetches, milliseconds."""
    return []


@pytest.fixture
def fetches() -> list[SessionFetch]:
    """The consumer's fetches."""
    return []


@pytest.fixture
async def consumer(
    topic_prefix: str,
    kafka_bootstrap: str,
    kafka_admin: AIOKafkaAdminClient,
    waits: list[int],
    fetches: list[SessionFetch],
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of two empty partitions."""
    patch_aiokafka()
    topic = f"{topic_prefix}fetched"
    await kafka_admin.create_topics([NewTopic(topic, 2, 1)])
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=LONGEST
    )
    send = consumer._client.send

    async def noted(node_id: Any, request: Any, **options: Any) -> Any:
        if isinstance(request, FetchRequest):
            waits.append(request._max_wait_ms)
            fetches.append(request)
        return await send(node_id, request, **options)

    consumer._client.send = noted
    await consumer.start()
    consumer.assign([TopicPartition(topic, number) for number in range(2)])
    yield consumer
    await consumer.stop()


async def test_waits_are_brief_until_one_fetch_found_nothing(
    consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, waits: list[int]
) -> None:
    first, second = sorted(consumer.assignment())
    await eventually(lambda: len(waits) >= 3)
    assert waits[:3] == [FIRST_WAIT_MILLISECONDS, LONGEST, LONGEST]
    assert fetched_end(consumer, first) == 0
    await receive(consumer, producer, first)
    await eventually(lambda: fetched_end(consumer, first) == 1)
    assert set(waits[1:]) == {LONGEST}, "a record ends a wait, and the next one is as long"
    consumer.assign([second])
    await consumer.position(second)
    waits.clear()
    consumer.assign([first, second])
    assert len(await received(consumer)) == 1
    await eventually(lambda: waits.count(LONGEST) >= 2)
    brief = waits[: waits.index(LONGEST)]
    assert set(brief) == {FIRST_WAIT_MILLISECONDS}
    assert len(brief) >= 2, "the fetch that found the record, and the one after it that found nothing"
    assert set(waits[len(brief) :]) == {LONGEST}


async def test_a_failed_fetch_is_none_that_found_nothing(
    consumer: AIOKafkaConsumer, waits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    send, failures = consumer._client.send, 2

    async def failing(node_id: Any, request: Any, **options: Any) -> Any:
        nonlocal failures
        if isinstance(request, FetchRequest) and failures:
            failures -= 1
            waits.append(request._max_wait_ms)
            raise KafkaConnectionError
        return await send(node_id, request, **options)

    partitions = sorted(consumer.assignment())
    await eventually(lambda: LONGEST in waits)
    monkeypatch.setattr(consumer._client, "send", failing)
    waits.clear()
    consumer.assign(partitions)
    await eventually(lambda: LONGEST in waits)
    assert failures == 0
    assert waits[: waits.index(LONGEST)].count(FIRST_WAIT_MILLISECONDS) >= 3


async def test_a_fetch_that_leaves_out_a_partition_waits_briefly(consumer: AIOKafkaConsumer, waits: list[int]) -> None:
    first, second = sorted(consumer.assignment())
    consumer.pause(second)
    # Some fetches may have been sent before the pause.
    before = len(waits)
    await eventually(lambda: len(waits) >= before + 3)
    waits.clear()
    await eventually(lambda: len(waits) >= 4)
    assert set(waits) == {FIRST_WAIT_MILLISECONDS}
    waits.clear()
    consumer.resume(second)
    await eventually(lambda: LONGEST in waits)
    assert fetched_end(consumer, first) == 0


async def test_other_requests_and_a_new_assignment_do_not_wait_for_a_fetch(
    consumer: AIOKafkaConsumer, waits: list[int], kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(consumer.assignment())
    monkeypatch.setattr(consumer._fetcher, "_longest_wait_ms", 20_000)
    consumer.assign([second])
    async with asyncio.timeout(30):
        await consumer.position(second)
        monkeypatch.setattr(consumer._fetcher, "_fetch_max_wait_ms", 20_000)
        await eventually(lambda: waits[-1:] == [20_000])
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap)
    await producer.start()
    try:
        async with asyncio.timeout(15):
            await consumer.end_offsets([second])
            consumer.assign([first])
            await consumer.position(first)
            await producer.send_and_wait(first.topic, b"record", partition=first.partition)
            assert (await consumer.getone()).value == b"record"
    finally:
        await producer.stop()


async def test_assignments_in_quick_succession_get_their_positions_at_once(consumer: AIOKafkaConsumer) -> None:
    partitions = sorted(consumer.assignment())
    async with asyncio.timeout(30):
        for turns in range(40):
            consumer.assign(partitions)
            for _ in range(turns):
                await asyncio.sleep(0)
            consumer.assign(partitions)
            for partition in partitions:
                await consumer.position(partition)


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap)
    await producer.start()
    yield producer
    await producer.stop()


def named(fetch: SessionFetch) -> tuple[set[int], set[int]]:
    """The partitions that a fetch names, and those that it tells the broker to forget."""
    added, forgotten = fetch.topics, fetch._session["forgotten_topics_data"]
    return (
        {number for _, partitions in added for number, *_ in partitions},
        {number for _, numbers in forgotten for number in numbers},
    )


async def receive(consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, partition: TopicPartition) -> None:
    """Send a record and wait for it."""
    value = random.randbytes(8)
    await producer.send_and_wait(partition.topic, value, partition=partition.partition)
    assert await received(consumer) == [(partition.partition, value)]


async def received(consumer: AIOKafkaConsumer) -> list[tuple[int, bytes | None]]:
    """The next records: their partitions and values."""
    records = await consumer.getmany(timeout_ms=30_000)
    return [(partition.partition, each.value) for partition, found in records.items() for each in found]


async def test_a_fetch_names_only_the_partitions_that_changed(
    consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, fetches: list[SessionFetch]
) -> None:
    first, second = sorted(consumer.assignment())
    await eventually(lambda: len(fetches) >= 3)
    assert [named(each) for each in fetches[:3]] == [({0, 1}, set()), (set(), set()), (set(), set())]
    for _ in range(2):
        fetches.clear()
        await receive(consumer, producer, first)
        await eventually(lambda: ({0}, set()) in map(named, fetches))
    fetches.clear()
    consumer.pause(first)
    await receive(consumer, producer, second)
    await eventually(lambda: {0} in [forgotten for _, forgotten in map(named, fetches)])
    await producer.send_and_wait(first.topic, b"while paused", partition=0)
    await receive(consumer, producer, second)
    fetches.clear()
    consumer.resume(first)
    assert await received(consumer) == [(0, b"while paused")]
    await eventually(lambda: fetched_end(consumer, first) == 3)
    assert fetched_end(consumer, second) == 2
    assert any(0 in added for added, _ in map(named, fetches)), "the resumed partition is named again"


@pytest.mark.parametrize(("session_id", "epoch"), [(1, None), (None, 1_000)], ids=["forgotten", "out of order"])
async def test_a_session_that_the_broker_refuses_begins_again_and_loses_nothing(
    consumer: AIOKafkaConsumer,
    producer: AIOKafkaProducer,
    fetches: list[SessionFetch],
    session_id: int | None,
    epoch: int | None,
) -> None:
    first, second = sorted(consumer.assignment())
    await receive(consumer, producer, first)
    (session,) = consumer._fetcher._client.sessions.values()
    session._id = session_id or session._id
    session._epoch = epoch or session._epoch
    fetches.clear()
    await receive(consumer, producer, second)
    await receive(consumer, producer, first)
    await eventually(lambda: ({0, 1}, set()) in map(named, fetches))
    await eventually(lambda: fetched_end(consumer, first) == 2)


async def test_the_broker_says_anew_where_partitions_end_after_an_assignment(consumer: AIOKafkaConsumer) -> None:
    first, second = sorted(consumer.assignment())
    await eventually(lambda: fetched_end(consumer, first) == 0)
    for partitions in ([second], [first, second]):
        consumer.assign(partitions)
        await eventually(lambda: fetched_end(consumer, second) == 0)
    assert fetched_end(consumer, first) == 0


def whole(*offsets: int) -> FetchRequest:
    """A fetch of as many partitions."""
    return FetchRequest(100, 1, 1 << 20, 0, [("topic", [(number, at, 1 << 20) for number, at in enumerate(offsets)])])


def response(session_id: int, *, throttled: int = 0, error: int = 0) -> FetchResponse_v11:
    return FetchResponse_v11(throttled, error, session_id, [("topic", [(0, 0, 5, 5, 0, [], -1, b"")])])


def test_a_broker_without_room_for_a_session_gets_all_partitions_each_time() -> None:
    session = FetchSession()
    for _ in range(2):
        fetch = session.next_fetch(whole(1, 2))
        assert (named(fetch)[0], fetch._session["session_id"], fetch._session["session_epoch"]) == ({0, 1}, 0, 0)
        session.take(response(0))
        assert session.unchanged == {}


def test_a_broker_without_sessions_gets_all_partitions_each_time() -> None:
    session = FetchSession()
    session.next_fetch(whole(1, 2))
    session.take(response(7))
    fetch = session.next_fetch(whole(1, 2))
    assert named(fetch) == (set(), set())
    assert fetch.build(FetchRequest_v6).encode() == whole(1, 2).build(FetchRequest_v6).encode()
    older = FetchRequest_v6.RESPONSE_TYPE(0, [])
    session.take(older)
    assert named(session.next_fetch(whole(1, 2)))[0] == {0, 1}


def test_a_throttled_response_says_nothing_about_the_partitions_that_it_does_not_name() -> None:
    session = FetchSession()
    session.next_fetch(whole(1, 2))
    session.take(response(7))
    assert session.unchanged == {TopicPartition("topic", 1): 2}
    session.next_fetch(whole(1, 2))
    session.take(response(7, throttled=100))
    assert session.unchanged == {}
    assert named(session.next_fetch(whole(1, 2)))[0] == set(), "the session continues"


def test_epochs_begin_at_one_again_after_the_last_one() -> None:
    session = FetchSession()
    session.next_fetch(whole(1))
    session.take(response(7))
    session._epoch = (1 << 31) - 1
    session.next_fetch(whole(1))
    session.take(response(7))
    assert session.next_fetch(whole(1))._session["session_epoch"] == 1


async def test_what_is_to_be_done_is_what_aiokafka_finds(consumer: AIOKafkaConsumer) -> None:
    """Random states of 12 partitions of three brokers, some without a leader."""
    await consumer._fetcher.close()
    own = consumer._fetcher
    draw = random.Random(1)
    partitions = [TopicPartition("topic", number) for number in range(12)]
    seen = set()
    for _ in range(2_000):
        consumer.assign(partitions)
        assignment = consumer._subscription.subscription.assignment
        leaders = draw.choice([[1], [1, 2, 3], [1, 2, None, -1]])
        chosen = {each: draw.choice(leaders) for each in partitions}
        own._client.cluster.leader_for_partition = chosen.get
        own._in_flight = set(draw.sample([1, 2, 3], draw.randrange(3)))
        own._pending_tasks = set(map(str, own._in_flight)) if draw.random() < 0.9 else set()
        own._records.clear()
        for each in partitions:
            state = assignment.state_value(each)
            if draw.random() < 0.9:
                state.seek(draw.randrange(100))
            if draw.random() < 0.1:
                state.pause()
            if draw.random() < draw.choice([0, 0.1]):
                own._records[each] = fetcher.FetchError(error=None, backoff=draw.choice([0, 60 * draw.random()]))
        found, expected = (
            method(assignment)
            for method in (own._get_actions_per_node, lambda of: fetcher.Fetcher._get_actions_per_node(own, of))
        )
        assert comparable(found[0]) == comparable(expected[0])
        assert {node: set(each) for node, each in found[1].items()} == {
            node: set(each) for node, each in expected[1].items()
        }
        in_callback = len(own._in_flight) > len(own._pending_tasks)
        assert found[2] == (0 if in_callback else pytest.approx(max(expected[2], 0), abs=0.1))
        assert found[3] == expected[3]
        assert set(found[4]) == set(expected[4])
        seen |= {
            ("fetch", bool(found[0])),
            ("reset", bool(found[1])),
            ("leaderless", found[3]),
            ("paused", bool(found[4])),
        }
    assert len(seen) == 8, "every kind of action was drawn, and none of each"
    own._in_flight, own._pending_tasks = set(), set()


def comparable(fetches: list[tuple[Any, FetchRequest]]) -> dict[Any, dict[str, set[tuple[int, int, int]]]]:
    return {node: {topic: set(partitions) for topic, partitions in fetch.topics} for node, fetch in fetches}


async def test_the_end_of_a_partition_without_a_response_is_unknown(consumer: AIOKafkaConsumer) -> None:
    assert fetched_end(consumer, TopicPartition("another", 0)) is None
