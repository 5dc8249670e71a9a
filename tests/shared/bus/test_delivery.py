"""Ends of a record (done, refused, dead-lettered, dropped) and the replies to its caller."""

import asyncio
import time
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from shared.bus import topics
from shared.bus.envelope import unix_milliseconds
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import DAY, INSTANCES
from shared.errors import Kind
from shared.ids import new_message_id
from shared.messages import Caller, Sealed
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import TOPICS, Append, Appended, Posted, Refuse, Relay, Reveal, Total

KIB = 1024


async def test_a_command_is_handled_replied_to_and_its_events_are_published(bus: BusHarness) -> None:
    async with bus.running(), bus.running("audit"):
        reply = await bus.call(Append(subject="s", number=1, key="s", events=3))
        assert (reply.kind, reply.body, reply.replayed) == ("done", {"entries": 1}, False)
        await bus.drained("ledger", "audit")
    assert await bus.numbers("s") == [1]
    assert await bus.numbers("s", "audit") == [1, 1, 1]
    events = await bus.records("ledger.events")
    assert [record.key for record in events] == [b"s"] * 3
    assert len({dict(record.headers)["id"] for record in events}) == 3


async def test_a_repeat_gets_the_stored_reply_marked_as_replayed(bus: BusHarness) -> None:
    async with bus.running() as running:
        message_id = new_message_id()
        command = Append(subject="s", number=1, key="s", unique="u")
        replies = [await bus.call(command, id=message_id) for _ in range(3)]
        assert [reply.replayed for reply in replies] == [False, True, True]
        assert {reply.body["entries"] for reply in replies} == {1}
        assert running.ledger.runs[message_id] == 1
        refused = [await bus.call(Append(subject="t", number=2, unique="u"), id="d" * 32) for _ in range(2)]
        assert [(reply.kind, reply.body["code"], reply.replayed) for reply in refused] == [
            ("conflict", "entry_taken", False),
            ("conflict", "entry_taken", True),
        ]


async def test_a_repeat_sends_acknowledged_messages_again_only_after_a_restart(bus: BusHarness) -> None:
    message_id = new_message_id()
    command = Append(subject="s", number=1, key="s", events=3)
    async with bus.running():
        # As two Stripe events of a new customer, each of which orders its user under the same ID.
        replies = [await bus.call(command, id=message_id) for _ in range(3)]
        assert [reply.replayed for reply in replies] == [False, True, True]
        await bus.drained()
        assert len(await bus.records("ledger.events")) == 3
    async with bus.running():
        # The earlier process may have crashed before it sent them.
        assert (await bus.call(command, id=message_id)).replayed
        await bus.drained()
    assert len(await bus.records("ledger.events")) == 6
    assert len({dict(record.headers)["id"] for record in await bus.records("ledger.events")}) == 3


async def test_the_reply_to_a_forwarded_command_reaches_the_caller(bus: BusHarness) -> None:
    async with bus.running():
        message_id = new_message_id()
        first = await bus.call(Relay(subject="s", number=1, key="k"), id=message_id)
        second = await bus.call(Relay(subject="s", number=1, key="k"), id=message_id)
        assert (first.kind, first.body, first.replayed) == ("done", {"entries": 1}, False)
        assert (second.body, second.replayed) == ({"entries": 1}, True)
        assert await bus.numbers("s") == [1]


async def test_no_secret_is_readable_on_any_topic_or_in_any_row(bus: BusHarness) -> None:
    async with bus.running():
        reply = await bus.call(Reveal(secret=Sealed.of("open sesame")))
        assert bus.sealer.unseal("gateway", reply.body.decode()) == b'{"secret":"open sesame"}'
    records = [record for topic in TOPICS for record in await bus.records(topic.name)]
    # The command and the reply; instances report their clocks on a topic of their own.
    assert len([record for record in records if not record.topic.endswith(INSTANCES.name)]) == 2
    assert "sesame" not in repr(records)
    assert "sesame" not in repr(await bus.rows())


async def test_a_query_past_its_deadline_is_dropped(bus: BusHarness) -> None:
    async with bus.running() as running:
        late = await bus.send(Total(subject="s"), deadline=unix_milliseconds() - 1, reply_to=bus._partition)
        reply = await bus.call(Total(subject="s"))
        assert reply.body == {"entries": 0}
        await bus.drained()
    assert running.ledger.runs[late.id] == 0
    assert late.id not in [reply_id for reply_id, _ in bus.replies]


async def test_a_command_past_its_deadline_is_handled(bus: BusHarness) -> None:
    async with bus.running():
        await bus.send(Append(subject="s", number=1), deadline=unix_milliseconds() - 1)
        await bus.drained()
    assert await bus.numbers("s") == [1]


async def test_five_attempts_with_growing_pauses_end_in_a_dead_letter(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.delivery.FIRST_PAUSE", 0.02)
    starts: list[float] = []
    async with bus.running() as running:
        runs = running.ledger.runs

        class TimedCounter(type(runs)):  # type: ignore[misc]
            def __setitem__(self, key: str, value: int) -> None:
                starts.append(time.monotonic())
                super().__setitem__(key, value)

        running.ledger.runs = TimedCounter()
        reply = await bus.call(Append(subject="open sesame", number=1, key="s", fail=99))
        assert (reply.kind, reply.body) == (Kind.BUG, {"code": "unknown"})
        # The next message of the key is not delayed any longer.
        assert (await bus.call(Append(subject="s", number=2, key="s"))).kind == "done"
        await bus.drained()
    pauses = [later - earlier for earlier, later in pairwise(starts[:5])]
    assert len(pauses) == 4
    assert pauses[-1] > 5 * pauses[0]
    (letter,) = await bus.dead_letters()
    assert (letter.reason, letter.detail, letter.attempts) == ("failing", "RuntimeError", 5)
    assert "sesame" not in letter.trace
    assert "sample_services.py" in letter.trace
    assert letter.group == f"{bus.prefix}ledger"


async def test_a_retry_that_succeeds_takes_effect_once(bus: BusHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.bus.delivery.FIRST_PAUSE", 0.02)
    async with bus.running() as running:
        message_id = new_message_id()
        assert (await bus.call(Append(subject="s", number=1, fail=4), id=message_id)).kind == "done"
        assert running.ledger.runs[message_id] == 5
    assert await bus.numbers("s") == [1]
    assert await bus.records("ledger.commands.dead") == []


async def test_a_failed_command_can_be_repeated_with_its_message_id(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.delivery.FIRST_PAUSE", 0.001)
    async with bus.running():
        command, message_id = Append(subject="s", number=1, fail=5), new_message_id()
        assert (await bus.call(command, id=message_id)).kind == "bug"
        assert (await bus.call(command, id=message_id)).kind == "done"
    assert await bus.numbers("s") == [1]


async def test_a_too_old_message_is_dead_lettered_without_running(bus: BusHarness) -> None:
    async with bus.running() as running:
        old = await bus.send(Append(subject="s", number=1), time=unix_milliseconds() - 9 * DAY)
        await bus.drained()
    assert running.ledger.runs[old.id] == 0
    (letter,) = await bus.dead_letters()
    assert letter.reason == "too_old"


def poison(wire: str) -> dict[str, tuple[bytes | None, list[tuple[str, Any]]]]:
    """Values and headers that no service of Nest writes, by what is wrong with them."""
    good = [("type", wire.encode()), ("id", new_message_id().encode()), ("time", b"%d" % unix_milliseconds())]
    deep = b'{"subject":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    return {
        "bad UTF-8 in the body": (b'{"subject": "\xff\xfe", "number": 1}', good),
        "bad UTF-8 in a header": (b'{"subject": "s", "number": 1}', [*good, ("note", b"\xff\xfe")]),
        "bad UTF-8 in the id": (b'{"subject": "s", "number": 1}', [good[0], ("id", b"\xff"), good[2]]),
        "a header without a value": (b'{"subject": "s", "number": 1}', [*good, ("note", None)]),
        "wrong types": (b'{"subject": ["s"], "number": "one"}', good),
        "not an object": (b"[1, 2, 3]", good),
        "a huge number": (b'{"subject": "s", "number": ' + b"9" * 6000 + b"}", good),
        "no value": (None, good),
        "an empty value": (b"", good),
        "900 KiB": (b'{"subject": "' + b"s" * 900 * KIB + b'", "number": 1}', good),
        "900 KiB of noise": (bytes(range(256)) * 4 * 900, good),
        "deep nesting": (deep, good),
        "no headers": (b'{"subject": "s", "number": 1}', []),
        "no id": (b'{"subject": "s", "number": 1}', [good[0], good[2]]),
        "an invalid time": (b'{"subject": "s", "number": 1}', [*good[:2], ("time", b"yesterday")]),
        "a deadline of 401 digits": (b'{"subject": "s", "number": 1}', [*good, ("deadline", b"1" + b"0" * 400)]),
        "an invalid reply partition": (b'{"subject": "s", "number": 1}', [*good, ("reply-to", b"gateway.replies")]),
    }


@pytest.mark.parametrize(
    ("topic", "wire", "service"),
    [
        ("ledger.commands", "ledger.append", "ledger"),
        ("ledger.webhooks", "ledger.posted", "ledger"),
        ("ledger.events", "ledger.appended", "audit"),
    ],
)
async def test_poison_is_dead_lettered_unchanged_and_the_next_message_handled(
    bus: BusHarness, topic: str, wire: str, service: str
) -> None:
    records = poison(wire)
    records["type of an unknown service"] = (b"{}", [("type", b"nobody.thing"), ("id", b"1"), ("time", b"1")])
    good = {"ledger.append": Append, "ledger.posted": Posted, "ledger.appended": Appended}[wire]
    async with bus.running(service):
        await bus.send(good(subject="first", number=0, key="k"))
        await wait_until(lambda: has(bus, "first", service))
        for number, (defect, (value, headers)) in enumerate(records.items()):
            await bus.put_record(topic, value, headers, key=b"k")
            injected = time.monotonic()
            await bus.send(good(subject=defect, number=number, key="k"))
            await wait_until(lambda defect=defect: has(bus, defect, service), 60, f"nothing was handled after {defect}")  # type: ignore[misc]
            assert time.monotonic() - injected < 6, f"handled too late after {defect}"
        await bus.drained(service)
    letters = await bus.dead_letters(topic)
    assert [(letter.value, list(letter.headers[1:])) for letter in letters] == list(records.values())
    assert {letter.key for letter in letters} == {b"k"}
    assert {letter.reason for letter in letters} == {"undecodable"}
    sources = {letter.source for letter in letters}
    assert len(sources) == len(records)
    assert None not in sources


async def has(bus: BusHarness, subject: str, service: str) -> bool:
    return bool(await bus.numbers(subject, service))


async def test_a_record_whose_key_is_not_utf8_is_dead_lettered(bus: BusHarness) -> None:
    async with bus.running():
        await bus.put_record(
            "ledger.commands", b"{}", [("type", b"ledger.append"), ("id", b"1"), ("time", b"1")], key=b"\xff"
        )
        assert (await bus.call(Append(subject="s", number=1))).kind == "done"
        await bus.drained()
    (letter,) = await bus.dead_letters()
    assert letter.key == b"\xff"


ADDRESS = b"ada@example.com"


async def test_dead_letters_and_logs_reveal_no_personal_data(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """For a failing command, an invalid record and two nearly valid ones."""
    monkeypatch.setattr("shared.bus.delivery.FIRST_PAUSE", 0.001)
    good = [("type", b"ledger.append"), ("id", new_message_id().encode()), ("time", b"%d" % unix_milliseconds())]
    caller = Caller(kind="anonymous", client_ip="203.0.113.77")
    async with bus.running():
        await bus.send(Append(subject=ADDRESS.decode(), number=1, key=ADDRESS.decode(), fail=9), caller=caller)
        await bus.put_record("ledger.commands", ADDRESS, [("x", ADDRESS)], key=ADDRESS)
        await bus.put_record(
            "ledger.commands", b"{}", [("type", ADDRESS), *good[1:], (ADDRESS.decode(), b"")], key=b"1"
        )
        await bus.put_record("ledger.commands", b'{"subject": 1, "number": "' + ADDRESS + b'"}', good, key=b"2")
        await bus.drained()
    raw = await bus.records("ledger.commands.dead")
    assert len(raw) == 4
    stored = repr([(record.key, record.value, record.headers) for record in raw]).encode()
    logged = [line.encode() for line in capfd.readouterr().out.splitlines() if "dead letter" in line]
    assert len(logged) == 4
    for readable in (stored, *logged):
        assert ADDRESS not in readable
        assert b"203.0.113.77" not in readable
    unsealed = repr([(letter.key, letter.value, letter.headers) for letter in await bus.dead_letters()]).encode()
    assert unsealed.count(ADDRESS) == 8
    assert b"203.0.113.77" in unsealed


async def test_a_compressed_record_above_the_size_limit_is_dead_lettered(bus: BusHarness) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bus.bootstrap, compression_type="gzip", max_request_size=16 << 20, max_batch_size=16 << 20
    )
    await producer.start()
    try:
        async with bus.running():
            await producer.send_and_wait(f"{bus.prefix}ledger.commands", b"x" * (4 << 20), b"k")
            await bus.drained()
    finally:
        await producer.stop()
    (letter,) = await bus.dead_letters()
    assert letter.value == b"x" * (4 << 20)


async def test_an_unknown_reply_partition_delays_no_message(bus: BusHarness) -> None:
    async with bus.running():
        started = time.monotonic()
        for number in range(20):
            await bus.send(Append(subject="s", number=number, key="s"), reply_to=99, reply_id="1")
        assert (await bus.call(Append(subject="s", number=20, key="s"))).body == {"entries": 21}
        assert time.monotonic() - started < 5
    assert await bus.listed("s") == list(range(21))


async def test_a_missing_reply_topic_delays_no_message(
    kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.delivery.REPLY_SECONDS", 0.5)
    bus = BusHarness(kafka_bootstrap, mongo_url, topic_prefix, database_prefix)
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TOPICS[:-1])
    await bus.producer.start()
    try:
        async with bus.running(drain_seconds=10):
            for number in range(20):
                await bus.send(Append(subject="s", number=number, key="s"), reply_to=0, reply_id="1")

            async def all_done() -> bool:
                return len(await bus.listed("s")) == 20

            await wait_until(all_done, 3, "delayed by the reply topic")
    finally:
        await bus.producer.stop()
        await bus.client.close()


async def test_without_a_dead_letter_topic_poison_delays_only_its_key(
    kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str, kafka_admin: AIOKafkaAdminClient
) -> None:
    async with BusHarness(kafka_bootstrap, mongo_url, topic_prefix, database_prefix) as bus, bus.running():
        await kafka_admin.delete_topics([f"{topic_prefix}ledger.commands.dead"])
        await bus.put_record("ledger.commands", b"poison", key=b"bad")
        for number in range(5):
            assert (await bus.call(Append(subject="s", number=number, key=str(number)))).kind == "done"
        partition = TopicPartition(f"{topic_prefix}ledger.commands", await bus.partition_of("bad"))
        assert (await bus.committed()).get(partition, 0) == 0, "the offset of an unhandled record was committed"
        await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TOPICS)
        await bus.drained()
        (letter,) = await bus.dead_letters()
        assert letter.value == b"poison"


async def test_rewound_offsets_change_nothing(bus: BusHarness) -> None:
    async with bus.running(), bus.running("audit"):
        for number in range(20):
            await bus.send(Append(subject=str(number % 3), number=number, key=str(number % 3), events=2))
        await bus.drained("ledger", "audit")
    before = await all_documents(bus)
    await bus.rewind("ledger", "audit")
    assert await bus.lag() == 20
    async with bus.running() as ledger, bus.running("audit") as audit:
        await bus.drained("ledger", "audit")
        assert (ledger.ledger.runs, audit.ledger.runs) == ({}, {})
    assert await all_documents(bus) == before


async def test_a_rewound_throttled_message_does_not_run_after_the_wait(bus: BusHarness) -> None:
    async with bus.running():
        reply = await bus.call(Refuse(subject="s", how="throttled"))
        assert reply.kind == "throttled"
        await bus.drained()
    await bus.rewind("ledger")
    async with bus.running() as running:
        await bus.drained()
        assert running.ledger.runs == {}


async def test_rewound_messages_older_than_the_inbox_are_dead_lettered(bus: BusHarness) -> None:
    async with bus.running():
        for number in range(5):
            await bus.send(Append(subject="s", number=number, key="s"))
        await bus.drained()
    # As MongoDB does when the rows expire; the retention is one second here.
    await bus.database()["inbox"].delete_many({})
    await bus.rewind("ledger")
    await asyncio.sleep(1.1)
    async with bus.running(inbox_retention=timedelta(seconds=1)) as running:
        await bus.drained()
        assert running.ledger.runs == {}
    assert [letter.reason for letter in await bus.dead_letters()] == ["too_old"] * 5
    assert await bus.listed("s") == list(range(5))


async def all_documents(bus: BusHarness) -> list[Any]:
    """All documents of both services."""
    databases = [bus.database(name) for name in ("ledger", "audit")]
    names = ("subjects", "entries", "inbox", "timers")
    return [await database[name].find().sort("_id").to_list() for database in databases for name in names]


async def test_an_unfinished_message_holds_back_the_committed_offset(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.send(Append(subject="slow", number=0, key="slow", gated=True))
        # Later in the same partition.
        partition = await bus.partition_of("slow")
        behind = [key for key in map(str, range(100)) if await bus.partition_of(key) == partition][:5]
        for key in behind:
            assert (await bus.call(Append(subject=key, number=1, key=key))).kind == "done"
        position = [
            offset
            for tp, offset in (await bus.committed()).items()
            if tp == (f"{bus.prefix}ledger.commands", partition)
        ]
        assert position in ([], [0]), "the offset of an unfinished message was committed"
        running.ledger.gate.set()
        await bus.drained()
    assert await bus.numbers("slow") == [0]
