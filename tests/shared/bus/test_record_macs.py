"""MACs of records: what they cover, which keys are accepted, and what happens to records without a valid one."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from shared.bus.kafka_connection import KafkaConnection
from shared.bus.record_macs import RecordMacs
from shared.bus.topics import TOPICS, declared
from shared.dead_letters.queue import DeadLetterQueue
from shared.dead_letters.records import DeadLetter
from shared.ids import new_message_id
from shared.messages import Caller
from shared.sealing import Sealer
from tests.shared.bus_harness import BusHarness
from tests.shared.inbox_harness import envelope
from tests.shared.sample_services import TOPICS as SAMPLE_TOPICS
from tests.shared.sample_services import Append, Appended, Posted

TOPIC = "auth.commands"
OLD, NEW = bytes(32), bytes(range(32))
REPLAY = [("replay-time", b"17"), ("replay-for", b"auth")]


@dataclass(frozen=True)
class Record:
    """A Kafka record."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    partition: int = 0
    offset: int = 0


def macs(prefix: str = "", *, accept_missing: bool = False, **keys: bytes) -> RecordMacs:
    return RecordMacs(Sealer(keys or {"k1": OLD}), prefix=prefix, accept_missing=accept_missing)


def command(**changes: Any) -> Record:
    """A signed record of a command with every header."""
    usual = {
        "topic": TOPIC,
        "key": "person",
        "body": b'{"user_id":"user_1"}',
        "caller": Caller(kind="user", client_ip="203.0.113.7", user_id="user_1"),
        "deadline": 1_800_000_000_000,
        "reply_to": 7,
        "reply_id": "b" * 32,
        "fingerprint": "c" * 64,
        "trace": f"00-{'a' * 32}-{'b' * 16}-01",
    }
    sent = envelope("1" * 32, **{**usual, **changes})
    key, headers = sent.key.encode(), sent.headers()
    return Record(key, sent.body, tuple(macs().signed(sent.topic, key, sent.body, headers)))


def with_header(name: str, value: bytes | None) -> Callable[[Record], Record]:
    """Return a function that changes a header of a record; None removes it."""

    def change(record: Record) -> Record:
        changed = [(each, value if each == name else old) for each, old in record.headers]
        return replace(record, headers=[(each, now) for each, now in changed if now is not None])

    return change


CHANGES: dict[str, Callable[[Record], Record]] = {
    "key": lambda record: replace(record, key=b"another"),
    "no key": lambda record: replace(record, key=None),
    "body": lambda record: replace(record, value=b'{"user_id":"user_2"}'),
    "no body": lambda record: replace(record, value=None),
    "type": with_header("type", b"auth.erase-user"),
    "id": with_header("id", b"2" * 32),
    "time": with_header("time", b"1800000000001"),
    "caller": with_header("caller", b'{"kind":"internal"}'),
    "no caller": with_header("caller", None),
    "deadline": with_header("deadline", b"1800000000001"),
    "no deadline": with_header("deadline", None),
    "reply partition": with_header("reply-to", b"8"),
    "reply ID": with_header("reply-id", b"d" * 32),
    "fingerprint": with_header("fingerprint", b"d" * 64),
    "trace": with_header("traceparent", b"00-1-2-01"),
    "additional header": lambda record: replace(record, headers=[*record.headers, ("caller", b'{"kind":"internal"}')]),
    "header before the MAC": lambda record: replace(record, headers=[("x", b""), *record.headers]),
    "order of headers": lambda record: replace(record, headers=[record.headers[0], *record.headers[:0:-1]]),
    "name of a header": lambda record: replace(
        record, headers=[(name.replace("deadline", "deadlime"), value) for name, value in record.headers]
    ),
    "boundary of two fields": lambda record: replace(record, key=b"perso", value=b"n" + (record.value or b"")),
    "ordered replay": lambda record: replace(record, headers=[*record.headers, *REPLAY]),
    "MAC": with_header("mac", b"k1." + b"0" * 64),
    "empty MAC": with_header("mac", b"k1."),
    "shorter MAC": lambda record: with_header("mac", record.headers[0][1][:-2])(record),
    "MAC without key ID": lambda record: with_header("mac", record.headers[0][1][3:])(record),
    "key ID": lambda record: with_header("mac", b"k2" + record.headers[0][1][2:])(record),
    "null MAC": lambda record: replace(record, headers=[("mac", None), *record.headers[1:]]),  # type: ignore[list-item]
    "no MAC": with_header("mac", None),
    "no headers": lambda record: replace(record, headers=[]),
    "MAC of a replay": lambda record: replace(
        record, headers=[("replay-mac", record.headers[0][1]), *record.headers[1:]]
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_record_with_a_change_is_refused(change: Callable[[Record], Record]) -> None:
    record = command()
    assert macs().problem(TOPIC, record) is None
    assert macs().problem(TOPIC, change(record)) is not None


def test_mac_is_hmac_sha_256_under_a_key_derived_for_the_full_topic() -> None:
    """RFC 2104 and RFC 5869, with key, value and headers preceded by their lengths."""
    ((name, value),) = macs("prod.").signed(TOPIC, b"k", None, [])
    info = b"nest hash for mac of records on prod.auth.commands"
    key = HKDF(SHA256(), 32, salt=None, info=info).derive(OLD)
    content = b"\0\0\0\1k" + b"\xff\xff\xff\xff"
    assert (name, value) == ("mac", b"k1." + hmac.new(key, content, hashlib.sha256).hexdigest().encode())


@pytest.mark.parametrize("topic", [topic.name for topic in declared() if topic.name != TOPIC])
def test_record_copied_to_another_topic_is_refused(topic: str) -> None:
    assert macs().problem(topic, command()) == "its MAC is wrong"


def test_record_copied_to_another_deployment_is_refused() -> None:
    assert macs("b.").problem(TOPIC, Record(b"k", b"v", macs("a.").signed(TOPIC, b"k", b"v", []))) is not None


NULLABLE = st.none() | st.binary(max_size=6)
HEADERS = st.lists(st.tuples(st.text("abm-", max_size=3), NULLABLE), max_size=3)
RECORDS = st.tuples(NULLABLE, NULLABLE, HEADERS)


@given(RECORDS, RECORDS)
def test_two_records_have_the_same_mac_only_if_they_are_equal(one: Any, other: Any) -> None:
    first, second = (macs().signed(TOPIC, key, value, headers)[0] for key, value, headers in (one, other))
    assert (first == second) == (one == other)
    key, value, headers = one
    assert macs().problem(TOPIC, Record(key, value, [first, *headers])) is None


def test_records_under_every_held_key_are_accepted_and_new_ones_have_the_first() -> None:
    before, during, after = macs(old=OLD), macs(new=NEW, old=OLD), macs(new=NEW)
    old, new = (Record(b"k", b"v", each.signed(TOPIC, b"k", b"v", [])) for each in (before, during))
    assert new.headers[0][1].startswith(b"new.")
    assert during.problem(TOPIC, old) is during.problem(TOPIC, new) is after.problem(TOPIC, new) is None
    assert after.problem(TOPIC, old) == "the sealing key of its MAC is not held"


def test_one_mac_is_computed_for_a_record_however_many_keys_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    many = macs(**{f"k{number}": bytes([number] * 32) for number in range(50)})
    record = Record(b"k", b"v", many.signed(TOPIC, b"k", b"v", []))
    computed: list[bytes] = []
    digest = hmac.digest
    monkeypatch.setattr(hmac, "digest", lambda *arguments: computed.append(arguments[0]) or digest(*arguments))
    assert many.problem(TOPIC, record) is None
    assert many.problem(TOPIC, replace(record, value=b"w")) is not None
    assert len(computed) == 2


def replayed(record: Record, by: RecordMacs | None = None, headers: Sequence[tuple[str, bytes]] = REPLAY) -> Record:
    signed = (by or macs()).signed(TOPIC, record.key, record.value, [*record.headers, *headers])
    return replace(record, headers=signed)


def test_replay_needs_the_mac_of_its_first_sender_and_one_of_its_own() -> None:
    record = command()
    assert macs().problem(TOPIC, replayed(record)) is None
    assert macs(new=NEW, k1=OLD).problem(TOPIC, replayed(record, macs(new=NEW, k1=OLD))) is None
    assert macs().problem(TOPIC, replayed(replace(record, headers=record.headers[1:]))) == "the record has no MAC"
    assert macs().problem(TOPIC, replayed(replace(record, value=b"forged"))) == "its MAC is wrong"
    genuine = replayed(record)
    assert macs().problem(TOPIC, replace(genuine, headers=[*genuine.headers[:-2], *REPLAY[1:]])) is not None
    later = [*genuine.headers[:-2], ("replay-time", b"18"), REPLAY[1]]
    assert macs().problem(TOPIC, replace(genuine, headers=later)) is not None


def test_missing_mac_is_accepted_only_if_ordered_and_a_wrong_one_never() -> None:
    record = command()
    without = replace(record, headers=record.headers[1:])
    accepting = macs(accept_missing=True)
    assert accepting.problem(TOPIC, without) is None
    assert accepting.problem(TOPIC, record) is None
    assert accepting.problem(TOPIC, replayed(without)) is None
    assert accepting.problem(TOPIC, replace(record, value=b"forged")) == "its MAC is wrong"


SENT = {
    "ledger.commands": (Append, "ledger"),
    "ledger.webhooks": (Posted, "ledger"),
    "ledger.events": (Appended, "audit"),
}


@pytest.mark.parametrize("topic", SENT)
async def test_foreign_record_becomes_an_unauthenticated_dead_letter(bus: BusHarness, topic: str) -> None:
    message, service = SENT[topic]
    forged = envelope(
        new_message_id(), wire=message.wire, topic=topic, body=json.dumps({"subject": "s", "number": 1}).encode()
    )
    before = REGISTRY.get_sample_value("nest_unauthenticated_records_total", {"topic": topic}) or 0.0
    async with bus.running(service) as running:
        for _ in range(12):
            await bus.put_foreign_record(topic, forged.body, forged.headers(), key=b"s", partition=0)
        await bus.put_foreign_record(topic, b"\xff", key=b"s", partition=0)
        await bus.drained(service)
        assert running.consumer.fault is None, "a stranger must not stop the consumer"
    letters = await bus.dead_letters(topic)
    assert [letter.reason for letter in letters] == ["unauthenticated"] * 13
    assert letters[0].detail == "the record has no MAC"
    assert await bus.numbers("s", service) == []
    assert await bus.rows(service) == []
    assert REGISTRY.get_sample_value("nest_unauthenticated_records_total", {"topic": topic}) == before + 13


async def test_record_with_a_mac_copied_within_its_topic_takes_effect_once(bus: BusHarness) -> None:
    async with bus.running():
        await bus.send(Append(subject="s", number=1, key="s"))
        await bus.drained()
        (record,) = await bus.records("ledger.commands")
        await bus.put_foreign_record("ledger.commands", record.value, record.headers, key=record.key)
        await bus.drained()
    assert await bus.numbers("s") == [1]
    assert await bus.dead_letters() == []


async def test_replay_does_not_make_an_unauthenticated_record_valid(bus: BusHarness) -> None:
    forged = envelope(new_message_id(), wire=Append.wire, body=b'{"subject": "s", "number": 1}')
    async with bus.running():
        await bus.put_foreign_record("ledger.commands", forged.body, forged.headers(), key=b"s")
        await bus.drained()
        for _ in range(2):
            await replay_all(bus)
            await bus.drained()
    assert {letter.reason for letter in await bus.dead_letters()} == {"unauthenticated"}
    assert await bus.numbers("s") == []


async def test_record_of_a_key_that_is_added_later_is_replayed(bus: BusHarness) -> None:
    """A sender seals with a new key before the receiver holds it: nothing is lost."""
    sender = RecordMacs(Sealer({"later": NEW}), prefix=bus.prefix)
    sent = envelope(new_message_id(), wire=Append.wire, body=b'{"subject": "s", "number": 1}', key="s")
    headers = sender.signed("ledger.commands", b"s", sent.body, sent.headers())
    async with bus.running():
        await bus.put_foreign_record("ledger.commands", sent.body, headers, key=b"s")
        await bus.drained()
    (letter,) = await bus.dead_letters()
    assert (letter.reason, letter.detail) == ("unauthenticated", "the sealing key of its MAC is not held")
    keys = bus.settings().sealing_keys.get_secret_value()
    encoded = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    async with bus.running(sealing_keys=f"{keys},later:{encoded}"):
        await replay_all(bus)
        await bus.drained()
    assert await bus.numbers("s") == [1]


async def test_letter_that_nest_did_not_write_is_shown_as_such_and_cannot_be_replayed(bus: BusHarness) -> None:
    """The sealed record of a genuine letter in a forged letter with another reason."""
    async with bus.running():
        await bus.put_foreign_record("ledger.commands", b"{}", [("type", b"ledger.append")], key=b"k")
        await bus.drained()
    (genuine,) = await bus.records("ledger.commands.dead")
    headers = [
        ("dead-reason", b"failing") if name == "dead-reason" else (name, value) for name, value in genuine.headers
    ]
    await bus.put_foreign_record("ledger.commands.dead", genuine.value, headers[1:], key=b"another")
    await bus.put_foreign_record("ledger.commands.dead", genuine.value, headers, key=genuine.key)
    page = await queue_of(bus).oldest(lambda _: True, topic=None, limit=9, cursor=None)
    assert [(letter.reason, letter.source is None, letter.group) for letter in page.letters[1:]] == [("", True, "")] * 2
    assert page.letters[0].reason == "unauthenticated"


@pytest.mark.parametrize("mode", ["refuse", "accept"])
async def test_records_of_the_release_before_wait_for_the_setting(bus: BusHarness, mode: str) -> None:
    sent = envelope(new_message_id(), wire=Append.wire, body=b'{"subject": "s", "number": 1}', key="s")
    await bus.put_foreign_record("ledger.commands", sent.body, sent.headers(), key=b"s")
    async with bus.running(unauthenticated_records=mode):
        await bus.drained()
    assert await bus.numbers("s") == ([1] if mode == "accept" else [])


def test_every_declared_topic_has_keys_of_its_own() -> None:
    keys = {macs()._keys_of("mac", topic.name).by_id[b"k1"] for topic in declared(TOPICS)}
    assert len(keys) == len(declared(TOPICS))


def queue_of(bus: BusHarness) -> DeadLetterQueue:
    return DeadLetterQueue(
        KafkaConnection(bus.bootstrap), prefix=bus.prefix, topics=SAMPLE_TOPICS, sealer=bus.sealer, macs=bus.macs
    )


async def replay_all(bus: BusHarness) -> list[DeadLetter]:
    queue = queue_of(bus)
    page = await queue.oldest(lambda _: True, topic=None, limit=9, cursor=None)
    async with queue.sender() as sender:
        for letter in page.letters:
            await sender.replay(letter)
    return page.letters
