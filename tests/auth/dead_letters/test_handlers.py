"""What operators see of dead letters, and what becomes of those that they replay."""

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
from shared.bus.producer import Producer
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
TABLE = [topics.Topic("mailer.commands", 4, topics.DAY), topics.Topic("auth.events", 4, topics.DAY)]


@dataclass
class Aside:
    """A record that was put aside; Kafka is told what a service would say."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    headers: Sequence[tuple[str, bytes]]


class Office:
    """Topics with dead letters, and a harness that looks after them."""

    def __init__(self, harness: ServiceHarness, producer: Producer, bootstrap: str, prefix: str) -> None:
        self.harness = harness
        self._producer = producer
        self._bootstrap = bootstrap
        self.prefix = prefix
        self._offset = 0

    async def letter(self, body: bytes | None = b"{}", *, topic: str = "mailer.commands", **given: Any) -> str:
        """Put a letter aside; returns its message's id."""
        one_id = given.pop("id", new_message_id())
        made = given.pop("made", datetime.now(UTC))
        self._offset += 1
        record = Aside(
            given.pop("key", b"k"),
            body,
            given.pop("partition", 1),
            given.pop("offset", self._offset),
            given.pop(
                "headers",
                [
                    ("type", given.pop("type", "mailer.send-mail").encode()),
                    ("id", one_id.encode()),
                    ("time", b"%d" % (made.timestamp() * 1000)),
                ],
            ),
        )
        said: dict[str, Any] = {
            "reason": "failing",
            "detail": "KeyError",
            "sealer": self.harness.sealer,
            "trace": '  File "a.py", line 1, in f\n    g()\n',
            "attempts": 5,
            "group": f"{self.prefix}mailer",
            "at": int(datetime.now(UTC).timestamp() * 1000),
        }
        letter = dead_letter_record(record, topic, **{**said, **given})
        await self._producer.send_record(f"{topic}.dead", letter.value, letter.headers, key=letter.key)
        return str(one_id)

    async def shown(self, **asked: Any) -> dict[str, Any]:
        said: dict[str, Any] = await self.harness.deliver(ListDeadLetters(**asked), caller=OPERATOR)
        return said

    async def replay(self, **asked: Any) -> list[tuple[str, str]]:
        said = await self.harness.deliver(ReplayDeadLetters(**asked), caller=OPERATOR)
        assert said["next_cursor"] is None
        return [(letter["id"], letter["outcome"]) for letter in said["letters"]]

    async def removed(self, topic: str) -> int:
        """How many letters of a topic Kafka was told to drop."""
        return sum(record.value is None for record in await self.came(topics.dead_letter_topic(topic), 1))

    async def came(self, topic: str = "mailer.commands", count: int = 4) -> list[Any]:
        """What stands on a topic of so many partitions now."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = [TopicPartition(self.prefix + topic, number) for number in range(count)]
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
async def office(
    new_harness: Callable[..., ServiceHarness], kafka_bootstrap: str, topic_prefix: str
) -> AsyncIterator[Office]:
    await topics.apply(kafka_bootstrap, prefix=topic_prefix, topics=TABLE)
    producer = Producer(kafka_bootstrap, prefix=topic_prefix)
    await producer.start()
    try:
        async with new_harness(kafka_bootstrap=kafka_bootstrap, topic_prefix=topic_prefix) as harness:
            yield Office(harness, producer, kafka_bootstrap, topic_prefix)
    finally:
        await producer.stop()


async def test_a_letter_is_shown_with_all_that_is_known_of_it(office: Office) -> None:
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    one_id = await office.letter(b'{"to":"k1.sealed"}', made=at, partition=3, offset=41, key=b"user_1")
    (shown,) = (await office.shown())["letters"]
    put_aside_at = shown.pop("put_aside_at")
    assert datetime.now(UTC) - datetime.fromisoformat(put_aside_at) < timedelta(minutes=1)
    assert shown.pop("headers") == [
        {"name": name, "value": {"size": len(value), "start": 0, "text": value, "base64": None}}
        for name, value in (("type", "mailer.send-mail"), ("id", one_id), ("time", f"{at.timestamp() * 1000:.0f}"))
    ]
    assert shown == {
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
        "message_id": one_id,
        "made_at": "2026-11-20T12:00:00.000Z",
        "key": {"size": 6, "start": 0, "text": "user_1", "base64": None},
        "headers_left_out": 0,
        "body": {"size": 18, "start": 0, "text": '{"to":"k1.sealed"}', "base64": None},
        "closed": False,
        "replayed_at": None,
    }


async def test_what_is_no_text_is_shown_byte_for_byte(office: Office) -> None:
    await office.letter(b"\xff\xfe", key=b"\xff", headers=[("type", b"\xff"), ("null", None)])
    await office.letter(None)
    nothing, noise = (await office.shown())["letters"]
    assert nothing["body"] is None
    assert base64.b64decode(noise["body"]["base64"]) == b"\xff\xfe"
    assert base64.b64decode(noise["key"]["base64"]) == b"\xff"
    assert noise["headers"][0]["value"]["base64"] == base64.b64encode(b"\xff").decode()
    assert noise["headers"][1] == {"name": "null", "value": None}
    assert (noise["type"], noise["message_id"], noise["made_at"]) == ("\\xff", None, None)


async def test_a_body_full_of_control_characters_is_shown_in_no_more_than_kafka_takes(office: Office) -> None:
    """JSON writes each of them in six characters, and a reply has at most a mebibyte."""
    await office.letter(b"\0" * 500_000)
    one = await office.shown(id="mailer.commands.0")
    assert len(json.dumps(one)) < 512 * 1024
    assert base64.b64decode(one["letters"][0]["body"]["base64"]) == b"\0" * PIECE_BYTES
    assert ListDeadLetters.reply_sealed, "what was sealed for Kafka must not lie there readable as an answer"


@pytest.mark.parametrize("body", ["ä" * 300_000, "x" + "€" * 200_001], ids=["two bytes", "three bytes"])
async def test_a_long_text_is_read_in_pieces_that_split_no_character(office: Office, body: str) -> None:
    await office.letter(body.encode())
    (shown,) = (await office.shown())["letters"]
    assert body.startswith(shown["body"]["text"])
    assert PREVIEW_BYTES - 3 < len(shown["body"]["text"].encode()) <= PREVIEW_BYTES
    read = b""
    while len(read) < len(body.encode()):
        (piece,) = (await office.shown(id=shown["id"], body_from=len(read)))["letters"]
        assert piece["body"]["start"] == len(read)
        assert len(piece["body"]["text"].encode()) <= PIECE_BYTES
        read += piece["body"]["text"].encode()
    assert read.decode() == body


async def test_a_filter_names_all_that_a_letter_must_have(office: Office) -> None:
    now = datetime.now(UTC)
    await office.letter(topic="auth.events", group=f"{office.prefix}billing", type="auth.user-ensured")
    await office.letter(reason="undecodable", at=int((now - timedelta(days=2)).timestamp() * 1000))
    await office.letter(reason="too_old")

    async def found(**wanted: Any) -> list[str]:
        return [letter["id"] for letter in (await office.shown(filter=DeadLetterFilter(**wanted)))["letters"]]

    assert await found() == ["mailer.commands.1", "auth.events.0", "mailer.commands.0"]
    assert await found(topic="auth.events") == await found(service="billing") == ["auth.events.0"]
    assert await found(type="auth.user-ensured") == await found(reason="failing") == ["auth.events.0"]
    assert await found(until=now - timedelta(days=1)) == ["mailer.commands.0"]
    assert await found(since=now - timedelta(days=1), topic="mailer.commands") == ["mailer.commands.1"]
    assert await found(reason="too_old", service="billing") == []


async def test_a_letter_that_is_not_there_is_refused(office: Office) -> None:
    with pytest.raises(Refused) as refused:
        await office.shown(id="mailer.commands.7")
    assert refused.value.code == "dead_letter_not_found"
    for asked in (ListDeadLetters(cursor="?"), ReplayDeadLetters(filter=DeadLetterFilter(), cursor="?")):
        with pytest.raises(Refused) as refused:
            await office.harness.deliver(asked, caller=OPERATOR)
        assert refused.value.code == "invalid_cursor"


async def test_all_that_a_filter_names_go_back_once_in_their_order(office: Office) -> None:
    ids = [await office.letter(b"%d" % number) for number in range(5)]
    await office.letter(topic="auth.events")
    wanted = DeadLetterFilter(topic="mailer.commands")
    letters = [f"mailer.commands.{number}" for number in range(5)]
    assert await office.replay(filter=wanted) == [(one, "replayed") for one in letters]
    assert await office.replay(filter=wanted) == [(one, "replayed_before") for one in letters]
    assert [(dict(record.headers)["id"].decode(), record.partition) for record in await office.came()] == [
        (one, 1) for one in ids
    ]
    assert await office.came("auth.events") == []
    shown = (await office.shown(filter=wanted))["letters"]
    assert all(letter["replayed_at"] for letter in shown)
    assert await office.replay(filter=wanted, again=True) == [(one, "replayed") for one in letters]
    assert len(await office.came()) == 10


async def test_some_go_back_in_their_order_however_they_are_named(office: Office) -> None:
    ids = [await office.letter() for _ in range(3)]
    named = ("mailer.commands.2", "mailer.commands.0", "mailer.commands.9", "mailer.commands.2")
    assert await office.replay(ids=named) == [
        ("mailer.commands.9", "gone"),
        ("mailer.commands.0", "replayed"),
        ("mailer.commands.2", "replayed"),
    ]
    assert [dict(record.headers)["id"].decode() for record in await office.came()] == [ids[0], ids[2]]


async def test_who_looks_at_letters_leaves_an_entry_that_names_the_one_that_was_read(office: Office) -> None:
    await office.letter()
    (shown,) = (await office.shown())["letters"]
    await office.shown(id=shown["id"])
    with pytest.raises(Refused):
        await office.shown(id="mailer.commands.99")
    assert [(told.action, told.refused_as, told.resource_id) for told in office.harness.recorded] == [
        ("list_dead_letters", None, None),
        ("list_dead_letters", None, shown["id"]),
        ("list_dead_letters", "dead_letter_not_found", None),
    ]


async def test_two_letters_about_one_record_are_one(office: Office) -> None:
    made = datetime.now(UTC)
    for _ in range(2):
        await office.letter(id="a" * 32, offset=7, made=made)
    assert [outcome for _, outcome in await office.replay(filter=DeadLetterFilter())] == ["replayed", "replayed_before"]
    assert len(await office.came()) == 1


async def test_what_is_too_old_stays_unless_that_is_meant(office: Office) -> None:
    await office.letter(made=office.harness.now - timedelta(days=9))
    await office.letter(made=office.harness.now)
    assert [outcome for _, outcome in await office.replay(filter=DeadLetterFilter())] == ["too_old", "replayed"]
    meant = await office.replay(filter=DeadLetterFilter(), although_too_old=True)
    assert [outcome for _, outcome in meant] == ["replayed", "replayed_before"]
    young, old = (dict(record.headers) for record in await office.came())
    assert "replay-time" not in young
    assert int(old["replay-time"]) == int(office.harness.now.timestamp() * 1000)


async def test_what_nest_did_not_put_there_stays(office: Office) -> None:
    await office._producer.send_record(
        "mailer.commands.dead", b"x", [("dead-source", b"mailer.commands/1/1")], key=b"1"
    )
    await office._producer.send_record("mailer.commands.dead", None, [("x", b"y")], key=b"2")
    (bare, strange) = (await office.shown())["letters"]
    assert (bare["reason"], bare["service"], bare["put_aside_at"], bare["offset"]) == ("", "", None, None)
    assert strange["offset"] == 1
    assert [outcome for _, outcome in await office.replay(filter=DeadLetterFilter())] == ["not_ours", "not_ours"]
    assert await office.came() == []


async def test_many_are_replayed_call_by_call(office: Office) -> None:
    for _ in range(7):
        await office.letter()
    done, cursor = [], None
    while True:
        order = ReplayDeadLetters(filter=DeadLetterFilter(), limit=3, cursor=cursor)
        said = await office.harness.deliver(order, caller=OPERATOR)
        done.append(len(said["letters"]))
        if (cursor := said["next_cursor"]) is None:
            break
    assert sum(done) == 7
    assert max(done) == 3
    assert len(await office.came()) == 7


async def test_one_order_delivered_twice_replays_once(office: Office) -> None:
    await office.letter()
    order, one_id = ReplayDeadLetters(filter=DeadLetterFilter(), again=True), new_message_id()
    for _ in range(2):
        said = await office.harness.deliver(order, caller=OPERATOR, id=one_id)
        assert said["letters"] == [{"id": "mailer.commands.0", "outcome": "replayed"}]
    assert len(await office.came()) == 1


async def test_what_is_sealed_with_a_key_that_is_gone_is_shown_closed_and_stays(office: Office) -> None:
    await office.letter(sealer=Sealer({"gone": bytes(32)}))
    (shown,) = (await office.shown())["letters"]
    assert (shown["closed"], shown["reason"], shown["service"]) == (True, "failing", "mailer")
    assert (shown["key"], shown["headers"], shown["body"]) == (None, [], None)
    assert [outcome for _, outcome in await office.replay(filter=DeadLetterFilter(), again=True)] == ["closed"]
    assert await office.came() == []


async def test_any_cursor_is_answered_at_once(office: Office) -> None:
    """Replays come one after the other: one that waited for what will never come would stop them all."""
    await office.letter()
    cursor = base64.urlsafe_b64encode(json.dumps({"mailer.commands": [1, 9_999]}).encode()).decode().rstrip("=")
    order = ReplayDeadLetters(filter=DeadLetterFilter(topic="mailer.commands"), cursor=cursor)
    async with asyncio.timeout(8):
        said = await office.harness.deliver(order, caller=OPERATOR)
    assert said == {"letters": [], "next_cursor": None}


async def test_two_operators_at_once_put_a_letter_back_under_one_id(office: Office) -> None:
    """Handled by two instances side by side, as for a while after a rebalance: what came twice has one id."""
    one_id = await office.letter()
    order = ReplayDeadLetters(filter=DeadLetterFilter())
    both = await asyncio.gather(*(office.harness.deliver(order, caller=OPERATOR) for _ in range(2)))
    assert sorted(letter["outcome"] for said in both for letter in said["letters"]) == ["replayed", "replayed_before"]
    assert {dict(record.headers)["id"].decode() for record in await office.came()} == {one_id}


async def erase(office: Office, user_id: str, *identifiers: tuple[str, str], **more: Any) -> list[Any]:
    """Order auth's part of an erasure as often as it orders itself; the confirmations."""
    order = EraseUserFromAuth(
        key=user_id, process_id="userproc_1", user_id=user_id, identifiers=sealed(office, identifiers), **more
    )
    office.harness.clear()
    await office.harness.deliver(order)
    while ours := [order for order in office.harness.published_of(EraseUserFromAuth) if not order.again]:
        office.harness.clear()
        await office.harness.deliver(ours[0])
    return office.harness.published_of(ConfirmErasure)


def sealed(office: Office, identifiers: Sequence[tuple[str, str]]) -> Sealed:
    return Sealed(office.harness.sealer.seal("auth", json.dumps(identifiers).encode()))


async def test_letters_about_somebody_who_was_erased_are_gone(office: Office) -> None:
    address, number = "ada@example.com", "+41791234567"
    mail = SendMail(template="magic-link", to=Sealed.of(address), variables=Sealed.of("{}"), client_id="client_1")
    await office.letter(b"{}", key=b"user_1")
    await office.letter(b'{"user_id": "user_1"}')
    await office.letter(b'{"customer_email": "Ada\\u0040example.com"}', type="stripe.event")
    await office.letter(b"\xff no JSON: ada@EXAMPLE.com", reason="undecodable")
    await office.letter(b'{"phone_number": "+41791234567"}', topic="auth.events")
    await office.letter(encode(mail, office.harness.sealer))
    await office.letter(b"{}", headers=[("caller", b'{"user_id": "user_1"}')])
    await office.letter(b'{"to": "bob@example.com"}', key=b"user_2")
    assert await erase(office, "user_1", ("email", address), ("phone", number)) != []
    (left,) = (await office.shown())["letters"]
    assert (left["id"], left["key"]["text"]) == ("mailer.commands.6", "user_2")
    with pytest.raises(Refused):
        await office.shown(id="mailer.commands.0")
    named = await office.replay(ids=("mailer.commands.0", "auth.events.0", "mailer.commands.6"), again=True)
    assert {outcome for one, outcome in named if one != "mailer.commands.6"} == {"gone"}
    assert len(await office.came()) == 1
    # Told to Kafka too, which drops them when it cleans.
    assert await office.removed("mailer.commands") == 6
    assert await office.removed("auth.events") == 1


async def test_what_was_put_aside_meanwhile_goes_with_the_second_look(office: Office) -> None:
    assert len(await erase(office, "user_1")) == 1
    await office.letter(key=b"user_1")
    (second,) = [order for _, order in await office.harness.delayed() if isinstance(order, EraseUserFromAuth)]
    assert (second.again, second.letters_from) == (True, None)
    await office.harness.deliver(second)
    assert (await office.shown())["letters"] == []


async def test_of_many_letters_some_are_removed_at_a_time(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.auth.dead_letters.erasure.MOST_REMOVED", 2)
    for _ in range(5):
        await office.letter(key=b"user_1")
    assert len(await erase(office, "user_1")) == 1
    assert (await office.shown())["letters"] == []
    assert await office.removed("mailer.commands") == 5


async def test_a_replay_is_in_the_audit(office: Office) -> None:
    await office.replay(filter=DeadLetterFilter())
    (entry,) = office.harness.audited
    assert (entry.action, entry.outcome, entry.caller) == ("replay_dead_letters", "done", "internal")


@pytest.mark.parametrize("said", [{}, {"ids": [], "filter": {}}])
def test_an_order_says_which(said: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either ids or a filter"):
        ReplayDeadLetters.model_validate(said)


def test_every_consumed_topic_is_looked_at() -> None:
    looked_at = DeadLetterQueue("127.0.0.1:1", prefix="")._topics
    assert [topics.dead_letter_topic(one) for one in looked_at] == sorted(
        topic.name for topic in topics.declared() if topic.name.endswith(".dead")
    )
