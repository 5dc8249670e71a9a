"""Listing, replay and removal of dead letters on a real Kafka."""

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.envelope import unix_milliseconds
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import BusDown
from shared.bus.record_macs import RecordMacs
from shared.bus.topics import DAY
from shared.dead_letters.queue import MAX_READERS, DeadLetterQueue, InvalidQueueCursor
from shared.dead_letters.reader import DeadLetterReader
from shared.dead_letters.records import REPLAY_HEADERS, DeadLetter
from shared.dead_letters.records import dead_letter_record as write
from shared.sealing import Sealer
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import TOPICS, Append, Posted


def queue_of(bus: BusHarness, **options: Any) -> DeadLetterQueue:
    usual = {"sealer": bus.sealer, "macs": bus.macs}
    return DeadLetterQueue(KafkaConnection(bus.bootstrap), prefix=bus.prefix, topics=TOPICS, **{**usual, **options})


def everything(_letter: DeadLetter) -> bool:
    return True


@dataclass
class Record:
    """A record that could not be handled."""

    offset: int
    value: bytes | None = b"{}"
    partition: int = 0
    key: bytes | None = b"k"
    headers: Sequence[tuple[str, bytes]] = (("type", b"ledger.append"),)


async def add_letters(bus: BusHarness, *bodies: bytes, topic: str = "ledger.commands", at: int = 0) -> None:
    """Write dead letters, one second apart."""
    for number, body in enumerate(bodies):
        await add_letter(bus, Record(number, body), topic, at=at + number * 1000)


async def add_letter(bus: BusHarness, record: Record, topic: str = "ledger.commands", **changed: Any) -> None:
    """Write a dead letter as a service does."""
    fields: dict[str, Any] = {"reason": "undecodable", "detail": "", "trace": "", "attempts": 0, "at": 0}
    fields["group"] = f"{bus.prefix}ledger"
    written = write(record, topic, **{"sealer": bus.sealer, **fields, **changed})
    await bus.put_record(f"{topic}.dead", written.value, written.headers, key=written.key)


async def add_unsealed_letter(
    bus: BusHarness, record: Record, topic: str, *, group: str = "ledger", time: int = 1
) -> None:
    """Write a dead letter as services did before the sealing."""
    reason_headers = [
        ("dead-reason", b"failing"),
        ("dead-source", f"{topic}/{record.partition}/{record.offset}".encode()),
        ("dead-group", f"{bus.prefix}{group}".encode()),
        ("dead-time", b"%d" % time),
    ]
    await bus.put_foreign_record(f"{topic}.dead", record.value, [*record.headers, *reason_headers], key=record.key)


async def pages(queue: DeadLetterQueue, order: str, *, limit: int, topic: str | None = None) -> list[list[bytes]]:
    found, cursor = [], None
    while True:
        page = await getattr(queue, order)(everything, topic=topic, limit=limit, cursor=cursor)
        found.append([letter.value for letter in page.letters])
        if (cursor := page.next_cursor) is None:
            return found


async def test_pages_list_the_newest_dead_letters_of_all_topics_first(bus: BusHarness) -> None:
    await add_letters(bus, *(b"c%d" % number for number in range(50)), at=0)
    await add_letters(bus, *(b"e%d" % number for number in range(50)), topic="ledger.events", at=500)
    found = await pages(queue_of(bus), "newest", limit=17)
    flat = [value for page in found for value in page]
    assert flat == [b"%c%d" % (letter, number) for number in reversed(range(50)) for letter in b"ec"]
    assert [len(page) for page in found] == [17, 17, 17, 17, 17, 15]


async def test_new_dead_letters_do_not_shift_later_pages(bus: BusHarness) -> None:
    await add_letters(bus, b"0", b"1", b"2", b"3")
    queue = queue_of(bus)
    first = await queue.newest(everything, topic=None, limit=2, cursor=None)
    await add_letters(bus, b"late", topic="ledger.events")
    second = await queue.newest(everything, topic=None, limit=9, cursor=first.next_cursor)
    assert [letter.value for letter in (*first.letters, *second.letters)] == [b"3", b"2", b"1", b"0"]


async def test_oldest_first_ends_at_the_dead_letters_of_the_first_page(bus: BusHarness) -> None:
    await add_letters(bus, *(b"c%d" % number for number in range(70)))
    await add_letters(bus, b"e0", b"e1", topic="ledger.events")
    queue = queue_of(bus)
    first = await queue.oldest(everything, topic=None, limit=40, cursor=None)
    await add_letters(bus, b"late")
    rest = await queue.oldest(everything, topic=None, limit=99, cursor=first.next_cursor)
    assert rest.next_cursor is None
    found = [letter.value for letter in (*first.letters, *rest.letters)]
    assert found == [*(b"c%d" % number for number in range(70)), b"e0", b"e1"]


async def test_a_topic_restricts_the_page(bus: BusHarness) -> None:
    await add_letters(bus, b"c")
    await add_letters(bus, b"e", topic="ledger.events")
    assert await pages(queue_of(bus), "newest", limit=9, topic="ledger.events") == [[b"e"]]
    assert await pages(queue_of(bus), "oldest", limit=9, topic="ledger.commands") == [[b"c"]]
    assert await pages(queue_of(bus), "newest", limit=9, topic="no.such") == [[]]


async def test_a_scan_stops_at_its_budget_and_continues_with_the_cursor(bus: BusHarness) -> None:
    await add_letters(bus, *(b"%d" % number for number in range(100)))
    queue = queue_of(bus, scan_records=40)
    for order, step in (("newest", -1), ("oldest", 1)):
        cursor, found, calls = None, [], 0
        while True:
            page = await getattr(queue, order)(
                lambda letter: letter.value in (b"3", b"95"), topic=None, limit=9, cursor=cursor
            )
            found += [letter.value for letter in page.letters]
            calls += 1
            if (cursor := page.next_cursor) is None:
                break
        assert calls > 1
        assert found == [b"3", b"95"][::step]


async def test_large_dead_letters_make_short_pages(bus: BusHarness) -> None:
    await add_letters(bus, *(b"%d" % number * 700_000 for number in range(3)))
    body = [letter[:1] for page in await pages(queue_of(bus), "newest", limit=99) for letter in page]
    assert body == [b"2", b"1", b"0"]


async def test_dead_letters_are_found_by_id(bus: BusHarness) -> None:
    await add_letters(bus, b"0", b"1", b"2")
    wanted = [
        "ledger.commands.2",
        "ledger.commands.0",
        "ledger.commands.99",
        "no.such.1",
        "nonsense",
        "ledger.commands.x",
    ]
    found = await queue_of(bus).find(wanted)
    assert [(one, letter.value) for one, letter in found.items()] == [
        ("ledger.commands.0", b"0"),
        ("ledger.commands.2", b"2"),
    ]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "!!!", *(base64.urlsafe_b64encode(text).decode() for text in (b"[]", b'{"a":1}', b'{"a":[-1]}'))],
)
async def test_an_invalid_cursor_is_rejected(bus: BusHarness, cursor: str) -> None:
    with pytest.raises(InvalidQueueCursor):
        await queue_of(bus).newest(everything, topic=None, limit=1, cursor=cursor)


async def test_without_kafka_bus_down_is_raised() -> None:
    queue = DeadLetterQueue(
        KafkaConnection("127.0.0.1:1"), prefix="", topics=TOPICS, macs=RecordMacs(Sealer({"k1": bytes(32)}))
    )
    with pytest.raises(BusDown):
        await queue.newest(everything, topic=None, limit=1, cursor=None)
    with pytest.raises(BusDown):
        async with queue.sender():
            pass


async def replay(bus: BusHarness, *, macs: RecordMacs | None = None, **options: int) -> list[DeadLetter]:
    """Replay every dead letter; return them."""
    queue = queue_of(bus, macs=macs or bus.macs)
    page = await queue.oldest(everything, topic=None, limit=500, cursor=None)
    async with queue.sender() as sender:
        for letter in page.letters:
            await sender.replay(letter, **options)
    return page.letters


async def test_a_replay_has_the_original_bytes(bus: BusHarness) -> None:
    poison: dict[str, tuple[bytes | None, list[tuple[str, Any]], bytes | None]] = {
        "bad body": (b"\xff\xfe", [("type", b"ledger.append")], b"k"),
        "bad header": (b"{}", [("type", b"\xff"), ("type", b"twice"), ("dead-reason", b"mine")], b"\xff"),
        "no value": (None, [], None),
        "null header": (b"{}", [("x", None)], b""),
        "large": (b"x" * 900_000, [("id", b"1")], b"k"),
    }
    async with bus.running():
        for value, headers, key in poison.values():
            await bus.put_record("ledger.commands", value, headers, key=key, partition=3)
        await bus.drained()
        letters = await replay(bus)
        await bus.drained()
    records = await bus.records("ledger.commands")
    replay_header = ("replay-for", f"{bus.prefix}ledger".encode())
    assert {record.partition for record in records} == {3}
    # Sorted, because records without a key have no order.
    assert sorted(repr((r.key, r.value, (*r.headers, replay_header))) for r in records[: len(poison)]) == sorted(
        repr((r.key, r.value, r.headers[1:])) for r in records[len(poison) :]
    )
    # They were dead-lettered again, with the same content.
    again = (await queue_of(bus).oldest(everything, topic=None, limit=500, cursor=None)).letters[len(letters) :]
    assert sorted(repr((letter.key, letter.value, letter.headers)) for letter in again) == sorted(
        repr((letter.key, letter.value, letter.headers)) for letter in letters
    )


async def test_replayed_commands_take_effect_once_in_the_order_of_their_key(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.delivery.FIRST_PAUSE", 0.001)
    async with bus.running():
        for number in range(4):
            for subject in "st":
                # Fails in the first five runs of this process.
                await bus.send(Append(subject=subject, number=number, key=subject, fail=5))
        await bus.drained()
        assert await bus.numbers("s") == []
        for _ in range(2):
            assert len(await replay(bus)) == 8
            await bus.drained()
    assert await bus.listed("s") == await bus.listed("t") == [0, 1, 2, 3]
    assert await bus.numbers("s") == await bus.numbers("t") == [0, 1, 2, 3]


async def test_a_replay_is_skipped_by_other_consumer_groups(bus: BusHarness) -> None:
    """Another group dead-lettered what ``ledger`` handled and whose inbox row has expired since."""
    async with bus.running():
        await bus.send(Posted(subject="s", number=1, key="s"))
        await bus.drained()
        assert await bus.numbers("s") == [1]
        (record,) = await bus.records("ledger.webhooks")
        await bus.database()["inbox"].delete_many({})
        await add_letter(bus, record, "ledger.webhooks", group=f"{bus.prefix}other")
        await replay(bus)
        await bus.drained()
        assert await bus.numbers("s") == [1]
    assert len(await bus.records("ledger.webhooks")) == 2


async def test_a_too_old_message_runs_only_if_its_replay_is_forced(bus: BusHarness) -> None:
    async with bus.running():
        old = await bus.send(Append(subject="s", number=1, key="s"), time=unix_milliseconds() - 9 * DAY)
        await bus.drained()
        await replay(bus)
        await bus.drained()
        assert await bus.numbers("s") == []
        (first, second) = (await queue_of(bus).oldest(everything, topic=None, limit=9, cursor=None)).letters
        assert (first.reason, second.reason) == ("too_old", "too_old")
        assert first.header("id") == second.header("id") == old.id
        for _ in range(2):
            await replay(bus, forced_at=unix_milliseconds())
            await bus.drained()
    assert await bus.numbers("s") == [1]


async def test_replays_that_fail_again_do_not_stop_the_consumer(bus: BusHarness) -> None:
    async with bus.running() as running:
        for _ in range(9):
            await bus.put_record("ledger.commands", b"poison", partition=0)
        await bus.drained()
        await replay(bus)
        await replay(bus)
        await bus.drained()
        assert running.consumer.fault is None
        assert (await bus.call(Append(subject="s", number=1))).kind == "done"


async def test_a_dead_letter_of_before_the_sealing_is_listed_and_replayed(bus: BusHarness) -> None:
    headers = (("type", b"ledger.append"), ("dead-reason", b"mine"), ("dead-group", b"mine too"))
    for offset, value in enumerate((b"{}", None)):
        await add_unsealed_letter(bus, Record(offset, value, headers=headers, key=b"%d" % offset), "ledger.commands")
    first, second = await replay(bus, macs=RecordMacs(bus.sealer, prefix=bus.prefix, accept_missing=True))
    assert (first.key, first.value, first.headers) == (b"0", b"{}", headers)
    assert (first.reason, first.group, first.written_at) == (
        "failing",
        f"{bus.prefix}ledger",
        datetime(1970, 1, 1, 0, 0, 0, 1000, UTC),
    )
    assert (second.value, second.sealed, second.removable) == (None, False, False)
    assert first.dedup_key != second.dedup_key
    records = [(record.key, record.value, record.headers[1:4]) for record in await bus.records("ledger.commands")]
    assert sorted(records, key=repr) == [(b"0", b"{}", headers), (b"1", None, headers)]


async def test_a_dead_letter_sealed_with_a_lost_key_stays_sealed(bus: BusHarness) -> None:
    await add_letter(bus, Record(1), sealer=Sealer({"gone": bytes(32)}))
    await bus.put_record("ledger.commands.dead", b"noise", [("dead-sealed", b"1")], key=b"x")
    page = await queue_of(bus).newest(everything, topic=None, limit=9, cursor=None)
    for letter in page.letters:
        assert (letter.sealed, letter.key, letter.value, letter.headers) == (True, None, None, ())
    assert page.letters[1].reason == "undecodable"


async def test_without_a_sealer_only_the_reason_is_read(bus: BusHarness) -> None:
    await add_letter(bus, Record(1))
    (closed,) = (await queue_of(bus, sealer=None).newest(everything, topic=None, limit=9, cursor=None)).letters
    (opened,) = (await queue_of(bus).newest(everything, topic=None, limit=9, cursor=None)).letters
    assert (closed.sealed, closed.value, opened.value) == (True, None, b"{}")
    assert (closed.dedup_key, closed.reason, closed.group) == (opened.dedup_key, opened.reason, opened.group)


async def test_tombstones_are_not_listed(bus: BusHarness) -> None:
    await add_letters(bus, b"0", b"1", b"2")
    queue = queue_of(bus)
    letters = (await queue.oldest(everything, topic=None, limit=9, cursor=None)).letters
    async with queue.sender() as sender:
        await sender.remove(letters[1])
    await add_letters(bus, b"3")
    left = [b"3", b"2", b"1", b"0"]
    assert await pages(queue, "newest", limit=2) == [left[:2], left[2:]]
    assert await pages(queue, "oldest", limit=9) == [left[::-1]]
    assert list(await queue.find(["ledger.commands.3", "ledger.commands.4"])) == ["ledger.commands.4"]


@pytest.mark.slow
async def test_kafka_deletes_a_removed_dead_letter_at_its_next_compaction(
    bus: BusHarness, kafka_admin: AIOKafkaAdminClient
) -> None:
    name = f"{bus.prefix}ledger.commands.dead"
    # As declared, but in seconds instead of an hour and a day.
    settings = {"cleanup.policy": "compact,delete", "segment.ms": "100", "max.compaction.lag.ms": "1000"}
    await kafka_admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, settings)])
    await add_letters(bus, b"0", b"1", b"2")
    queue = queue_of(bus)
    letters = (await queue.oldest(everything, topic=None, limit=9, cursor=None)).letters
    for _ in range(2):
        # Twice, some time apart, as an erasure does: Kafka never compacts the active segment.
        await asyncio.sleep(0.5)
        async with queue.sender() as sender:
            await sender.remove(letters[1])

    async def deleted() -> bool:
        return [letter.value for letter in await bus.dead_letters() if letter.value is not None] == [b"0", b"2"]

    await wait_until(deleted, 90)
    assert await pages(queue, "newest", limit=9) == [[b"2", b"0"]]
    assert list(await queue.find(letter.id for letter in letters)) == [letters[0].id, letters[2].id]


async def test_a_cursor_beyond_the_end_does_not_block(bus: BusHarness) -> None:
    """A forged cursor must not block a reader for ever."""
    await add_letters(bus, b"0", b"1")
    queue = queue_of(bus)
    for span, expected in (
        ([0, 10**6], [b"0", b"1"]),
        ([1, 10**6], [b"1"]),
        ([7, 10**6], []),
        ([10**6], []),
        ([2, 1], []),
    ):
        cursor = base64.urlsafe_b64encode(json.dumps({"ledger.commands": span}).encode()).decode().rstrip("=")
        async with asyncio.timeout(30):
            page = await queue.oldest(everything, topic="ledger.commands", limit=9, cursor=cursor)
        assert ([letter.value for letter in page.letters], page.next_cursor) == (expected, None)
        await queue.newest(everything, topic="ledger.commands", limit=9, cursor=cursor)


async def test_concurrent_calls_share_a_bounded_number_of_readers(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_letters(bus, b"0")
    queue, reading, max_reading = queue_of(bus), 0, 0
    read = DeadLetterReader.read

    async def counted(*arguments: Any) -> list[DeadLetter]:
        nonlocal reading, max_reading
        reading += 1
        max_reading = max(max_reading, reading)
        try:
            await asyncio.sleep(0.05)
            return await read(*arguments)
        finally:
            reading -= 1

    monkeypatch.setattr(DeadLetterReader, "read", counted)
    found = await asyncio.gather(
        *(queue.newest(everything, topic="ledger.commands", limit=9, cursor=None) for _ in range(12))
    )
    assert [[letter.value for letter in page.letters] for page in found] == [[b"0"]] * 12
    assert 1 <= max_reading <= MAX_READERS


async def test_a_hundred_dead_letters_are_found_in_time(bus: BusHarness) -> None:
    await add_letters(bus, *(b"%d" % number for number in range(200)))
    started = time.monotonic()
    found = await queue_of(bus).find(f"ledger.commands.{number}" for number in range(0, 200, 2))
    assert [letter.value for letter in found.values()] == [b"%d" % number for number in range(0, 200, 2)]
    assert time.monotonic() - started < 10


def test_each_failed_record_has_a_deduplication_key_of_its_own() -> None:
    record_fields: dict[str, Any] = {
        "offset": 2,
        "value": b"v",
        "partition": 1,
        "key": b"k",
        "headers": (("id", b"1"),),
    }
    letter_fields: dict[str, Any] = {
        "topic": "a.commands", "sealer": Sealer({"k": bytes(32)}), "reason": "failing", "detail": "", "trace": "",
        "attempts": 5, "group": "a", "at": 1,
    }  # fmt: skip

    def dedup_key(**changed: Any) -> bytes:
        record = Record(**{**record_fields, **{n: v for n, v in changed.items() if n in record_fields}})
        return write(record, **{**letter_fields, **{n: v for n, v in changed.items() if n in letter_fields}}).key

    assert dedup_key(at=7, detail="x", trace="y", attempts=0, reason="too_old") == dedup_key()
    others: list[dict[str, Any]] = [
        {"topic": "b.commands"}, {"group": "b"}, {"offset": 3}, {"offset": 12}, {"partition": 12}, {"value": b"w"},
        {"value": None}, {"value": b""}, {"key": None}, {"key": b""}, {"headers": (("i", b"d1"),)}, {"headers": ()},
        {"headers": (("id", None),)}, {"sealer": Sealer({"k": bytes(range(32))})},
    ]  # fmt: skip
    assert len({dedup_key(), *(dedup_key(**each) for each in others)}) == len(others) + 1


@given(
    key=st.none() | st.binary(),
    value=st.none() | st.binary(),
    headers=st.lists(st.tuples(st.text(), st.none() | st.binary())),
)
def test_any_record_survives_sealing_and_unsealing(key: Any, value: Any, headers: Any) -> None:
    # Replay headers at the end are not original headers.
    headers = tuple(header for header in headers if header[0] not in REPLAY_HEADERS)
    sealer = Sealer({"k": bytes(32)})
    written = write(
        Record(1, value, key=key, headers=headers), "a.commands",
        sealer=sealer, reason="failing", detail="", trace="", attempts=5, group="a", at=1,
    )  # fmt: skip
    letter = DeadLetter.of(Record(9, written.value, key=written.key, headers=written.headers), "a.commands", sealer)
    assert (letter.key, letter.value, letter.headers, letter.sealed) == (key, value, headers, False)
    assert (letter.source, letter.dedup_key.encode()) == ((0, 1), written.key)
