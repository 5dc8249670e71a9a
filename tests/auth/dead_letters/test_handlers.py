"""Listing, replay and erasure of dead letters on a real Kafka."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.bus import topics
from shared.bus.envelope import encode
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.bus.record_macs import RecordMacs
from shared.dead_letters.queue import DeadLetterQueue
from shared.dead_letters.records import dead_letter_record
from shared.ids import new_message_id
from shared.messages import Caller, Sealed
from shared.messages.auth.dead_letters import (
    PIECE_BYTES,
    PREVIEW_BYTES,
    DeadLetterFilter,
    ListDeadLetters,
    ReplayDeadLetters,
)
from shared.messages.mailer.mails import SendMail
from shared.messages.personal_data import ConfirmErasure, EraseUserFromAuth
from shared.sealing import Sealer
from tests.service_harness import Refused, ServiceHarness

OPERATOR = Caller(kind="internal")
TOPICS = [topics.Topic("mailer.commands", 4, topics.DAY), topics.Topic("auth.events", 4, topics.DAY)]


@dataclass
class FailedRecord:
    """A record that a service could not handle."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    headers: Sequence[tuple[str, bytes]]


class DeadLetterHarness:
    """A service harness, and dead letters on its topics."""

    def __init__(self, harness: ServiceHarness, producer: Producer, bootstrap: str, prefix: str) -> None:
        self.service = harness
        self._producer = producer
        self._bootstrap = bootstrap
        self.prefix = prefix
        self._offset = 0

    async def add(self, body: bytes | None = b"{}", *, topic: str = "mailer.commands", **given: Any) -> str:
        """Write a dead letter, and return its message ID."""
        message_id = given.pop("id", new_message_id())
        created = given.pop("created", datetime.now(UTC))
        self._offset += 1
        record = FailedRecord(
            given.pop("key", b"k"),
            body,
            given.pop("partition", 1),
            given.pop("offset", self._offset),
            given.pop(
                "headers",
                [
                    ("type", given.pop("type", "mailer.send-mail").encode()),
                    ("id", message_id.encode()),
                    ("time", b"%d" % (created.timestamp() * 1000)),
                ],
            ),
        )
        defaults: dict[str, Any] = {
            "reason": "failing",
            "detail": "KeyError",
            "sealer": self.service.sealer,
            "trace": '  File "a.py", line 1, in f\n    g()\n',
            "attempts": 5,
            "group": f"{self.prefix}mailer",
            "at": int(datetime.now(UTC).timestamp() * 1000),
        }
        letter = dead_letter_record(record, topic, **{**defaults, **given})
        await self._producer.send_record(f"{topic}.dead", letter.value, letter.headers, key=letter.key)
        return str(message_id)

    async def listing(self, **options: Any) -> dict[str, Any]:
        view: dict[str, Any] = await self.service.deliver(ListDeadLetters(**options), caller=OPERATOR)
        return view

    async def replay(self, **options: Any) -> list[tuple[str, str]]:
        view = await self.service.deliver(ReplayDeadLetters(**options), caller=OPERATOR)
        assert view["next_cursor"] is None
        return [(letter["id"], letter["outcome"]) for letter in view["letters"]]

    async def tombstones(self, topic: str) -> int:
        """Number of tombstones on the dead-letter topic of a topic."""
        return sum(record.value is None for record in await self.records(topics.dead_letter_topic(topic), 1))

    async def records(self, topic: str = "mailer.commands", partition_count: int = 4) -> list[Any]:
        """All records of a topic."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = [TopicPartition(self.prefix + topic, number) for number in range(partition_count)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            await consumer.seek_to_beginning(*partitions)
            records: list[Any] = []
            while len(records) < sum(ends.values()):
                for found in (await consumer.getmany(timeout_ms=500)).values():
                    records.extend(found)
            return records
        finally:
            await consumer.stop()


@pytest.fixture
async def letters(
    new_harness: Callable[..., ServiceHarness], kafka_bootstrap: str, topic_prefix: str
) -> AsyncIterator[DeadLetterHarness]:
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TOPICS)
    macs = RecordMacs(Sealer({"test": bytes(range(32))}), prefix=topic_prefix)
    producer = Producer(KafkaConnection(kafka_bootstrap), macs=macs, prefix=topic_prefix)
    await producer.start()
    try:
        async with new_harness(kafka_bootstrap=kafka_bootstrap, topic_prefix=topic_prefix) as harness:
            yield DeadLetterHarness(harness, producer, kafka_bootstrap, topic_prefix)
    finally:
        await producer.stop()


async def test_dead_letter_is_listed_with_all_fields(letters: DeadLetterHarness) -> None:
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    message_id = await letters.add(b'{"to":"k1.sealed"}', created=at, partition=3, offset=41, key=b"user_1")
    (letter,) = (await letters.listing())["letters"]
    put_aside_at = letter.pop("put_aside_at")
    assert datetime.now(UTC) - datetime.fromisoformat(put_aside_at) < timedelta(minutes=1)
    assert letter.pop("headers") == [
        {"name": name, "value": {"size": len(value), "start": 0, "text": value, "base64": None}}
        for name, value in (("type", "mailer.send-mail"), ("id", message_id), ("time", f"{at.timestamp() * 1000:.0f}"))
    ]
    assert letter == {
        "id": "mailer.commands.0",
        "topic": "mailer.commands",
        "partition": 3,
        "offset": 41,
        "service": "mailer",
        "reason": "failing",
        "detail": "KeyError",
        "frames": ['File "a.py", line 1, in f', "g()"],
        "tries": 5,
        "type": "mailer.send-mail",
        "message_id": message_id,
        "made_at": "2026-11-20T12:00:00.000Z",
        "key": {"size": 6, "start": 0, "text": "user_1", "base64": None},
        "headers_left_out": 0,
        "body": {"size": 18, "start": 0, "text": '{"to":"k1.sealed"}', "base64": None},
        "closed": False,
        "replayed_at": None,
    }


async def test_bytes_that_are_no_text_are_listed_as_base64(letters: DeadLetterHarness) -> None:
    await letters.add(b"\xff\xfe", key=b"\xff", headers=[("type", b"\xff"), ("null", None)])
    await letters.add(None)
    without_value, binary = (await letters.listing())["letters"]
    assert without_value["body"] is None
    assert base64.b64decode(binary["body"]["base64"]) == b"\xff\xfe"
    assert base64.b64decode(binary["key"]["base64"]) == b"\xff"
    assert binary["headers"][0]["value"]["base64"] == base64.b64encode(b"\xff").decode()
    assert binary["headers"][1] == {"name": "null", "value": None}
    assert (binary["type"], binary["message_id"], binary["made_at"]) == ("\\xff", None, None)


async def test_body_of_control_characters_fits_into_a_reply(letters: DeadLetterHarness) -> None:
    """JSON escapes each of them as six characters, and a reply may have one MiB."""
    await letters.add(b"\0" * 500_000)
    view = await letters.listing(id="mailer.commands.0")
    assert len(json.dumps(view)) < 512 * 1024
    assert base64.b64decode(view["letters"][0]["body"]["base64"]) == b"\0" * PIECE_BYTES
    assert ListDeadLetters.reply_sealed, "a sealed dead letter must not be readable in a reply on Kafka"


@pytest.mark.parametrize("body", ["ä" * 300_000, "x" + "€" * 200_001], ids=["two bytes", "three bytes"])
async def test_long_text_is_read_in_pieces_that_split_no_character(letters: DeadLetterHarness, body: str) -> None:
    await letters.add(body.encode())
    (letter,) = (await letters.listing())["letters"]
    assert body.startswith(letter["body"]["text"])
    assert PREVIEW_BYTES - 3 < len(letter["body"]["text"].encode()) <= PREVIEW_BYTES
    read = b""
    while len(read) < len(body.encode()):
        (piece,) = (await letters.listing(id=letter["id"], body_from=len(read)))["letters"]
        assert piece["body"]["start"] == len(read)
        assert len(piece["body"]["text"].encode()) <= PIECE_BYTES
        read += piece["body"]["text"].encode()
    assert read.decode() == body


async def test_filter_matches_all_conditions(letters: DeadLetterHarness) -> None:
    now = datetime.now(UTC)
    await letters.add(topic="auth.events", group=f"{letters.prefix}billing", type="auth.user-ensured")
    await letters.add(reason="undecodable", at=int((now - timedelta(days=2)).timestamp() * 1000))
    await letters.add(reason="too_old")

    async def matching(**conditions: Any) -> list[str]:
        return [letter["id"] for letter in (await letters.listing(filter=DeadLetterFilter(**conditions)))["letters"]]

    assert await matching() == ["mailer.commands.1", "auth.events.0", "mailer.commands.0"]
    assert await matching(topic="auth.events") == await matching(service="billing") == ["auth.events.0"]
    assert await matching(type="auth.user-ensured") == await matching(reason="failing") == ["auth.events.0"]
    assert await matching(until=now - timedelta(days=1)) == ["mailer.commands.0"]
    assert await matching(since=now - timedelta(days=1), topic="mailer.commands") == ["mailer.commands.1"]
    assert await matching(reason="too_old", service="billing") == []


async def test_unknown_letter_and_invalid_cursor_are_refused(letters: DeadLetterHarness) -> None:
    with pytest.raises(Refused) as refused:
        await letters.listing(id="mailer.commands.7")
    assert refused.value.code == "dead_letter_not_found"
    for message in (ListDeadLetters(cursor="?"), ReplayDeadLetters(filter=DeadLetterFilter(), cursor="?")):
        with pytest.raises(Refused) as refused:
            await letters.service.deliver(message, caller=OPERATOR)
        assert refused.value.code == "invalid_cursor"


async def test_matching_letters_are_replayed_once_in_order(letters: DeadLetterHarness) -> None:
    ids = [await letters.add(b"%d" % number) for number in range(5)]
    await letters.add(topic="auth.events")
    conditions = DeadLetterFilter(topic="mailer.commands")
    letter_ids = [f"mailer.commands.{number}" for number in range(5)]
    assert await letters.replay(filter=conditions) == [(each, "replayed") for each in letter_ids]
    assert await letters.replay(filter=conditions) == [(each, "replayed_before") for each in letter_ids]
    assert [(dict(record.headers)["id"].decode(), record.partition) for record in await letters.records()] == [
        (each, 1) for each in ids
    ]
    assert await letters.records("auth.events") == []
    listed = (await letters.listing(filter=conditions))["letters"]
    assert all(letter["replayed_at"] for letter in listed)
    assert await letters.replay(filter=conditions, again=True) == [(each, "replayed") for each in letter_ids]
    assert len(await letters.records()) == 10


async def test_letters_given_by_id_are_replayed_in_order(letters: DeadLetterHarness) -> None:
    ids = [await letters.add() for _ in range(3)]
    letter_ids = ("mailer.commands.2", "mailer.commands.0", "mailer.commands.9", "mailer.commands.2")
    assert await letters.replay(ids=letter_ids) == [
        ("mailer.commands.9", "gone"),
        ("mailer.commands.0", "replayed"),
        ("mailer.commands.2", "replayed"),
    ]
    assert [dict(record.headers)["id"].decode() for record in await letters.records()] == [ids[0], ids[2]]


async def test_listing_is_audited_with_the_letter_that_was_read(letters: DeadLetterHarness) -> None:
    await letters.add()
    (letter,) = (await letters.listing())["letters"]
    await letters.listing(id=letter["id"])
    with pytest.raises(Refused):
        await letters.listing(id="mailer.commands.99")
    assert [(each.action, each.refused_as, each.resource_id) for each in letters.service.recorded] == [
        ("list_dead_letters", None, None),
        ("list_dead_letters", None, letter["id"]),
        ("list_dead_letters", "dead_letter_not_found", None),
    ]


async def test_two_letters_about_one_record_are_replayed_once(letters: DeadLetterHarness) -> None:
    created = datetime.now(UTC)
    for _ in range(2):
        await letters.add(id="a" * 32, offset=7, created=created)
    assert [outcome for _, outcome in await letters.replay(filter=DeadLetterFilter())] == [
        "replayed",
        "replayed_before",
    ]
    assert len(await letters.records()) == 1


async def test_letter_older_than_the_inbox_is_replayed_only_if_ordered(letters: DeadLetterHarness) -> None:
    await letters.add(created=letters.service.now - timedelta(days=9))
    await letters.add(created=letters.service.now)
    assert [outcome for _, outcome in await letters.replay(filter=DeadLetterFilter())] == ["too_old", "replayed"]
    outcomes = await letters.replay(filter=DeadLetterFilter(), although_too_old=True)
    assert [outcome for _, outcome in outcomes] == ["replayed", "replayed_before"]
    recent, old = (dict(record.headers) for record in await letters.records())
    assert "replay-time" not in recent
    assert int(old["replay-time"]) == int(letters.service.now.timestamp() * 1000)


async def test_foreign_records_are_not_replayed(letters: DeadLetterHarness) -> None:
    await letters._producer.send_record(
        "mailer.commands.dead", b"x", [("dead-source", b"mailer.commands/1/1")], key=b"1"
    )
    await letters._producer.send_record("mailer.commands.dead", None, [("x", b"y")], key=b"2")
    (without_headers, with_source) = (await letters.listing())["letters"]
    assert (
        without_headers["reason"],
        without_headers["service"],
        without_headers["put_aside_at"],
        without_headers["offset"],
    ) == ("", "", None, None)
    assert with_source["offset"] == 1
    assert [outcome for _, outcome in await letters.replay(filter=DeadLetterFilter())] == ["not_ours", "not_ours"]
    assert await letters.records() == []


async def test_many_letters_are_replayed_in_several_calls(letters: DeadLetterHarness) -> None:
    for _ in range(7):
        await letters.add()
    counts, cursor = [], None
    while True:
        command = ReplayDeadLetters(filter=DeadLetterFilter(), limit=3, cursor=cursor)
        view = await letters.service.deliver(command, caller=OPERATOR)
        counts.append(len(view["letters"]))
        if (cursor := view["next_cursor"]) is None:
            break
    assert sum(counts) == 7
    assert max(counts) == 3
    assert len(await letters.records()) == 7


async def test_second_delivery_replays_nothing(letters: DeadLetterHarness) -> None:
    await letters.add()
    command, message_id = ReplayDeadLetters(filter=DeadLetterFilter(), again=True), new_message_id()
    for _ in range(2):
        view = await letters.service.deliver(command, caller=OPERATOR, id=message_id)
        assert view["letters"] == [{"id": "mailer.commands.0", "outcome": "replayed"}]
    assert len(await letters.records()) == 1


async def test_letter_that_can_not_be_unsealed_is_listed_as_closed(letters: DeadLetterHarness) -> None:
    await letters.add(sealer=Sealer({"gone": bytes(32)}))
    (letter,) = (await letters.listing())["letters"]
    assert (letter["closed"], letter["reason"], letter["service"]) == (True, "failing", "mailer")
    assert (letter["key"], letter["headers"], letter["body"]) == (None, [], None)
    assert [outcome for _, outcome in await letters.replay(filter=DeadLetterFilter(), again=True)] == ["closed"]
    assert await letters.records() == []


async def test_cursor_beyond_the_end_returns_at_once(letters: DeadLetterHarness) -> None:
    """Replays are handled one after the other; one that waits for missing records would block the others."""
    await letters.add()
    cursor = base64.urlsafe_b64encode(json.dumps({"mailer.commands": [1, 9_999]}).encode()).decode().rstrip("=")
    command = ReplayDeadLetters(filter=DeadLetterFilter(topic="mailer.commands"), cursor=cursor)
    async with asyncio.timeout(30):
        view = await letters.service.deliver(command, caller=OPERATOR)
    assert view == {"letters": [], "next_cursor": None}


async def test_concurrent_replays_use_the_same_message_id(letters: DeadLetterHarness) -> None:
    """Two instances may handle commands concurrently after a rebalance."""
    message_id = await letters.add()
    command = ReplayDeadLetters(filter=DeadLetterFilter())
    views = await asyncio.gather(*(letters.service.deliver(command, caller=OPERATOR) for _ in range(2)))
    assert sorted(letter["outcome"] for view in views for letter in view["letters"]) == ["replayed", "replayed_before"]
    assert {dict(record.headers)["id"].decode() for record in await letters.records()} == {message_id}


async def erase(letters: DeadLetterHarness, user_id: str, *identifiers: tuple[str, str], **options: Any) -> list[Any]:
    """Run auth's part of an erasure until it is finished, and return the confirmations."""
    command = EraseUserFromAuth(
        key=user_id, process_id="userproc_1", user_id=user_id, identifiers=sealed(letters, identifiers), **options
    )
    letters.service.clear()
    await letters.service.deliver(command)
    while own := [each for each in letters.service.published_of(EraseUserFromAuth) if not each.again]:
        letters.service.clear()
        await letters.service.deliver(own[0])
    return letters.service.published_of(ConfirmErasure)


def sealed(letters: DeadLetterHarness, identifiers: Sequence[tuple[str, str]]) -> Sealed:
    return Sealed(letters.service.sealer.seal("auth", json.dumps(identifiers).encode()))


async def test_letters_about_an_erased_user_are_removed(letters: DeadLetterHarness) -> None:
    address, number = "ada@example.com", "+41791234567"
    mail = SendMail(template="magic-link", to=Sealed.of(address), variables=Sealed.of("{}"), client_id="client_1")
    await letters.add(b"{}", key=b"user_1")
    await letters.add(b'{"user_id": "user_1"}')
    await letters.add(b'{"customer_email": "Ada\\u0040example.com"}', type="stripe.event")
    await letters.add(b"\xff no JSON: ada@EXAMPLE.com", reason="undecodable")
    await letters.add(b'{"phone_number": "+41791234567"}', topic="auth.events")
    await letters.add(encode(mail, letters.service.sealer))
    await letters.add(b"{}", headers=[("caller", b'{"user_id": "user_1"}')])
    await letters.add(b'{"to": "bob@example.com"}', key=b"user_2")
    assert await erase(letters, "user_1", ("email", address), ("phone", number)) != []
    (left,) = (await letters.listing())["letters"]
    assert (left["id"], left["key"]["text"]) == ("mailer.commands.6", "user_2")
    with pytest.raises(Refused):
        await letters.listing(id="mailer.commands.0")
    outcomes = await letters.replay(ids=("mailer.commands.0", "auth.events.0", "mailer.commands.6"), again=True)
    assert {outcome for letter_id, outcome in outcomes if letter_id != "mailer.commands.6"} == {"gone"}
    assert len(await letters.records()) == 1
    # Kafka deletes them at its next compaction.
    assert await letters.tombstones("mailer.commands") == 6
    assert await letters.tombstones("auth.events") == 1


async def test_later_letters_are_removed_by_the_second_erasure(letters: DeadLetterHarness) -> None:
    assert len(await erase(letters, "user_1")) == 1
    await letters.add(key=b"user_1")
    (second,) = [each for _, each in await letters.service.delayed() if isinstance(each, EraseUserFromAuth)]
    assert (second.again, second.letters_from) == (True, None)
    await letters.service.deliver(second)
    assert (await letters.listing())["letters"] == []


async def test_letters_are_removed_in_batches(letters: DeadLetterHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.auth.dead_letters.erasure.MAX_REMOVED", 2)
    for _ in range(5):
        await letters.add(key=b"user_1")
    assert len(await erase(letters, "user_1")) == 1
    assert (await letters.listing())["letters"] == []
    assert await letters.tombstones("mailer.commands") == 5


async def test_replay_is_audited(letters: DeadLetterHarness) -> None:
    await letters.replay(filter=DeadLetterFilter())
    (entry,) = letters.service.audited
    assert (entry.action, entry.outcome, entry.caller) == ("replay_dead_letters", "done", "internal")


@pytest.mark.parametrize("fields", [{}, {"ids": [], "filter": {}}])
def test_replay_needs_either_ids_or_a_filter(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either ids or a filter"):
        ReplayDeadLetters.model_validate(fields)


def test_every_consumed_topic_is_read() -> None:
    source_topics = DeadLetterQueue(KafkaConnection("127.0.0.1:1"), prefix="")._topics
    assert [topics.dead_letter_topic(each) for each in source_topics] == sorted(
        topic.name for topic in topics.declared() if topic.name.endswith(".dead")
    )
