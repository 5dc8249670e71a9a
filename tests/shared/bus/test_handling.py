"""Outcome of a message, the same at every delivery and in every instance."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel
from pymongo.errors import OperationFailure, PyMongoError

from shared.bus import handling as handling_module
from shared.bus.bulk_writes import VersionConflict
from shared.bus.envelope import Envelope, Undecodable, unix_milliseconds
from shared.bus.handling import EventNotHandled, Handler, TooOld, UnknownType, without_search
from shared.bus.inbox import DONE, Outcome, WriteConflict
from shared.bus.work import Work
from shared.errors import Kind, Refusal
from shared.ids import new_message_id
from shared.messages import Message, Sealed
from shared.messages.mailer.consents import GetMarketingConsent
from shared.mongo import connect, kill_idle_transactions, timed_out
from tests.shared.inbox_harness import SEALER, InboxHarness, envelope, enveloped
from tests.shared.sample_services import (
    AUDIT,
    LEDGER,
    Append,
    Appended,
    Ledger,
    Refuse,
    Relay,
    Reveal,
    Total,
    append,
)


class SubjectTaken(Refusal, kind=Kind.CONFLICT):
    pass


async def handled(harness: InboxHarness, sent: Envelope) -> Outcome:
    handling = harness.handling(LEDGER)
    return await handling.handle(sent, handling.decode(sent))


async def entries(harness: InboxHarness) -> list[int]:
    return [entry["number"] async for entry in harness.database["entries"].find().sort("number")]


async def test_a_message_is_handled_and_committed(harness: InboxHarness) -> None:
    sent = enveloped(Append(subject="s", number=1, key="s", events=2))
    outcome = await handled(harness, sent)
    assert (outcome.kind, outcome.body, outcome.replayed) == (DONE, b'{"entries":1}', False)
    assert [message.wire for message in outcome.messages] == ["ledger.appended"] * 2
    assert len({message.id for message in outcome.messages}) == 2
    assert await entries(harness) == [1]


async def test_a_second_delivery_returns_the_stored_outcome_without_a_run(harness: InboxHarness) -> None:
    sent = enveloped(Append(subject="s", number=1, key="s", events=2))
    first = await handled(harness, sent)
    second = await handled(harness, sent)
    assert second.replayed
    assert (second.kind, second.body, second.messages) == (first.kind, first.body, first.messages)
    assert harness.ledger().runs[sent.id] == 1
    assert await entries(harness) == [1]


async def test_two_instances_with_one_message_have_one_effect(harness: InboxHarness) -> None:
    other = harness.another()
    for number in range(10):
        sent = enveloped(Append(subject=f"s{number}", number=number, pause=0.01))
        one, two = await asyncio.gather(handled(harness, sent), handled(other, sent))
        assert one.body == two.body
        assert one.messages == two.messages
        assert sorted((one.replayed, two.replayed)) == [False, True]
    assert await entries(harness) == list(range(10))


async def test_a_handler_runs_again_after_a_version_conflict(harness: InboxHarness) -> None:
    instances = [harness, harness.another()]
    sent = [enveloped(Append(subject="hot", number=number)) for number in range(20)]
    done = await asyncio.gather(*(handled(instances[number % 2], envelope) for number, envelope in enumerate(sent)))
    assert {outcome.kind for outcome in done} == {DONE}
    assert await entries(harness) == list(range(20))
    document = await harness.database["subjects"].find_one({"_id": "hot"})
    assert document is not None
    assert sorted(document["numbers"]) == list(range(20))
    assert document["version"] == 20


async def test_a_locked_document_is_waited_for(harness: InboxHarness) -> None:
    """As after a lost connection: MongoDB keeps the transaction and its locks for a minute."""
    await handled(harness, enveloped(Append(subject="s", number=0)))
    async with harness.client.start_session() as session:
        await session.start_transaction()
        await harness.database["subjects"].update_one({"_id": "s"}, {"$set": {"held": True}}, session=session)
        waiting = asyncio.create_task(handled(harness, enveloped(Append(subject="s", number=1))))
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        await session.abort_transaction()
    assert (await waiting).kind == DONE
    assert await entries(harness) == [0, 1]


async def test_a_document_locked_for_long_raises_a_write_conflict(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handling_module, "MAX_RUNS", 3)
    await handled(harness, enveloped(Append(subject="s", number=0)))
    async with harness.client.start_session() as session, await session.start_transaction():
        await harness.database["subjects"].update_one({"_id": "s"}, {"$set": {"held": True}}, session=session)
        with pytest.raises(WriteConflict):
            await handled(harness, enveloped(Append(subject="s", number=1)))


async def test_the_transaction_of_a_dead_process_is_killed(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB keeps the transaction of a killed process, and its locks, for a minute."""
    monkeypatch.setattr("shared.mongo.IDLE_TRANSACTION_SECONDS", 0.3)
    await handled(harness, enveloped(Append(subject="s", number=0)))
    dead = connect(harness.mongo_url, application=harness.database.name)
    try:
        session = dead.start_session()
        await session.start_transaction()
        subjects = dead[harness.database.name]["subjects"]
        await subjects.update_one({"_id": "s"}, {"$set": {"held": True}}, session=session)
        async with asyncio.timeout(10):
            assert (await handled(harness, enveloped(Append(subject="s", number=1)))).kind == DONE
        with pytest.raises(OperationFailure, match="aborted"):
            await session.commit_transaction()
        await session.end_session()
    finally:
        await dead.close()
    assert await entries(harness) == [0, 1]


async def test_transactions_of_other_applications_are_not_killed(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.mongo.IDLE_TRANSACTION_SECONDS", 0.0)
    other = connect(harness.mongo_url, application="other")
    try:
        async with other.start_session() as session, await session.start_transaction():
            await other[harness.database.name]["subjects"].insert_one({"_id": "theirs"}, session=session)
            assert await kill_idle_transactions(harness.client) == 0
    finally:
        await other.close()
    assert await harness.database["subjects"].find_one({"_id": "theirs"})


async def test_a_handler_that_never_commits_ends_after_fifty_runs(harness: InboxHarness) -> None:
    async def never_committing(command: Append, work: Work, ledger: Ledger) -> None:
        ledger.runs[work.id] += 1
        work.replace(ledger.subjects, {"_id": "no such document"}, version=1)

    sent = enveloped(Append(subject="s", number=1))
    handling = harness.handling({Append: never_committing})
    with pytest.raises(RuntimeError, match="lost 50 times"):
        await handling.handle(sent, handling.decode(sent))
    assert harness.ledger().runs[sent.id] == handling_module.MAX_RUNS


async def test_a_refusal_is_stored_without_the_state(harness: InboxHarness) -> None:
    sent = enveloped(Refuse(subject="s", how="forgotten"))
    first, second = await handled(harness, sent), await handled(harness, sent)
    assert json.loads(first.body or b"") == {"code": "forgotten", "meta": {"why": "on purpose"}}
    assert (second.kind, second.body, second.replayed) == ("not_found", first.body, True)
    assert harness.ledger().runs[sent.id] == 1
    assert await entries(harness) == []
    assert first.messages == []


async def test_a_remembered_refusal_is_stored_with_the_state(harness: InboxHarness) -> None:
    sent = enveloped(Refuse(subject="s", how="remembered"))
    first, second = await handled(harness, sent), await handled(harness, sent)
    assert (first.kind, second.body) == ("forbidden", first.body)
    assert await entries(harness) == [0]
    assert [message.wire for message in first.messages] == ["ledger.appended"]
    assert second.messages == first.messages


async def test_an_unavailable_refusal_is_not_stored(harness: InboxHarness) -> None:
    sent = enveloped(Refuse(subject="s", how="unavailable"))
    for runs in (1, 2):
        outcome = await handled(harness, sent)
        assert (outcome.kind, outcome.replayed) == ("unavailable", False)
        assert harness.ledger().runs[sent.id] == runs
    assert await harness.row(sent.id) is None


async def test_a_redelivered_throttled_message_stays_refused_and_a_repeat_runs(harness: InboxHarness) -> None:
    sent = enveloped(Refuse(subject="s", how="throttled"), reply_to=0, reply_id="first", fingerprint="aa" * 32)
    first, redelivered = await handled(harness, sent), await handled(harness, sent)
    assert (first.kind, first.replayed, first.messages) == ("throttled", False, [])
    assert (redelivered.kind, redelivered.body, redelivered.replayed) == ("throttled", first.body, True)
    assert harness.ledger().runs[sent.id] == 1
    # The client's repeat has the same message ID and waits for another reply.
    repeat = enveloped(Refuse(subject="s", how="throttled"), sent.id, reply_to=0, reply_id="second")
    assert (await handled(harness, repeat)).replayed is False
    assert harness.ledger().runs[sent.id] == 2
    assert await entries(harness) == []


async def test_a_repeat_after_a_throttled_refusal_is_stored_as_usual(harness: InboxHarness) -> None:
    throttled = enveloped(Refuse(subject="s", how="throttled"), reply_to=0, reply_id="first")
    await handled(harness, throttled)
    done = enveloped(Append(subject="s", number=1), throttled.id, reply_to=0, reply_id="second")
    first, second = await handled(harness, done), await handled(harness, done)
    assert (first.kind, first.replayed, second.body, second.replayed) == (DONE, False, first.body, True)
    assert await entries(harness) == [1]


async def test_a_throttled_message_that_nobody_waits_for_leaves_no_row(harness: InboxHarness) -> None:
    sent = enveloped(Refuse(subject="s", how="throttled"))
    for runs in (1, 2):
        outcome = await handled(harness, sent)
        assert (outcome.kind, outcome.replayed, outcome.messages) == ("throttled", False, [])
        assert harness.ledger().runs[sent.id] == runs
    assert await harness.database["inbox"].count_documents({}) == 0


async def test_two_deliveries_of_a_throttled_message_at_once_have_one_row(harness: InboxHarness) -> None:
    sent = enveloped(Refuse(subject="s", how="throttled"), reply_to=0, reply_id="first")
    outcomes = await asyncio.gather(handled(harness, sent), handled(harness.another(), sent))
    assert {outcome.kind for outcome in outcomes} == {"throttled"}
    assert await harness.database["inbox"].count_documents({}) == 1


async def test_the_row_of_a_throttled_message_expires_after_an_hour(harness: InboxHarness) -> None:
    sent = enveloped(Refuse(subject="s", how="throttled"), reply_to=0, reply_id="first")
    await handled(harness, sent)
    row = await harness.row(f"{sent.id}:first")
    assert row is not None
    assert row["expiresAt"] - row["at"] == timedelta(hours=1)
    indexes = await harness.database["inbox"].index_information()
    assert indexes["expiresAt_1"]["expireAfterSeconds"] == 0
    # Other rows are not in this index.
    done = enveloped(Append(subject="s", number=1))
    await handled(harness, done)
    assert "expiresAt" not in (await harness.row(done.id) or {})


async def test_a_refusal_by_a_unique_index_is_stored(harness: InboxHarness) -> None:
    await handled(harness, enveloped(Append(subject="a", number=1, unique="u")))
    sent = enveloped(Append(subject="b", number=2, unique="u"))
    first, second = await handled(harness, sent), await handled(harness, sent)
    assert (first.kind, first.body) == ("conflict", b'{"code": "entry_taken"}')
    assert (second.body, second.replayed) == (first.body, True)
    assert await entries(harness) == [1]


async def test_a_reused_idempotency_key_is_refused(harness: InboxHarness) -> None:
    sent = enveloped(Append(subject="s", number=1), fingerprint="aa" * 32)
    await handled(harness, sent)
    other = enveloped(Append(subject="s", number=2), id=sent.id, fingerprint="bb" * 32)
    outcome = await handled(harness, other)
    assert (outcome.kind, outcome.body) == ("conflict", b'{"code": "idempotency_key_reused"}')
    assert await entries(harness) == [1]


async def test_two_requests_with_one_key_at_once_have_one_effect(harness: InboxHarness) -> None:
    message_id = new_message_id()
    sent = [
        enveloped(Append(subject="s", number=number, pause=0.02), id=message_id, fingerprint=f"{number}{number}" * 32)
        for number in (1, 2)
    ]
    outcomes = await asyncio.gather(*(handled(harness, envelope) for envelope in sent))
    assert sorted(outcome.kind for outcome in outcomes) == ["conflict", DONE]
    assert len(await entries(harness)) == 1


async def test_a_query_leaves_no_inbox_row(harness: InboxHarness) -> None:
    await handled(harness, enveloped(Append(subject="s", number=1)))
    sent = enveloped(Total(subject="s"))
    assert (await handled(harness, sent)).body == b'{"entries":1}'
    assert await harness.row(sent.id) is None


async def test_a_message_older_than_the_inbox_is_not_run(harness: InboxHarness) -> None:
    age = int(timedelta(days=8, minutes=1).total_seconds() * 1000)
    sent = enveloped(Append(subject="s", number=1), time=unix_milliseconds() - age)
    with pytest.raises(TooOld):
        await handled(harness, sent)
    assert harness.ledger().runs[sent.id] == 0


async def test_an_old_message_with_an_inbox_row_returns_its_outcome(harness: InboxHarness) -> None:
    sent = enveloped(Append(subject="s", number=1))
    await handled(harness, sent)
    sent.time -= int(timedelta(days=9).total_seconds() * 1000)
    assert (await handled(harness, sent)).replayed


async def test_a_reply_with_secrets_is_sealed_for_the_gateway(harness: InboxHarness) -> None:
    sent = enveloped(Reveal(secret=Sealed.of("open sesame")))
    outcome = await handled(harness, sent)
    row = await harness.row(sent.id)
    assert row is not None
    assert outcome.body is not None
    assert b"sesame" not in repr((row, outcome)).encode()
    assert SEALER.unseal("gateway", outcome.body.decode()) == b'{"secret":"open sesame"}'


async def test_a_forwarded_message_takes_the_reply_address(harness: InboxHarness) -> None:
    sent = enveloped(Relay(subject="s", number=1), reply_to=3, deadline=99)
    sent.reply_id = sent.id
    outcomes = [await handled(harness, sent), await handled(harness, sent)]
    for outcome in outcomes:
        (forwarded,) = outcome.messages
        assert not outcome.replies
        assert (forwarded.wire, forwarded.reply_to, forwarded.reply_id, forwarded.deadline) == (
            "ledger.append",
            3,
            sent.id,
            99,
        )
    assert outcomes[0].messages[0].id == outcomes[1].messages[0].id


async def test_a_query_is_forwarded_to_another_query(harness: InboxHarness) -> None:
    async def forward(_query: Total, work: Work, _ledger: Ledger) -> None:
        work.publish(Appended(subject="s", number=1))
        work.forward(GetMarketingConsent(user_id="user_1"))

    sent = enveloped(Total(subject="s"), reply_to=3, deadline=99)
    sent.reply_id = sent.id
    handling = harness.handling({Total: forward})
    outcome = await handling.handle(sent, handling.decode(sent))
    assert not outcome.replies
    (forwarded,) = outcome.messages
    assert forwarded.wire == "mailer.get-marketing-consent"
    assert (forwarded.reply_to, forwarded.reply_id, forwarded.deadline) == (3, sent.id, 99)


async def test_a_handler_that_hangs_times_out(harness: InboxHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handling_module, "HANDLER_SECONDS", 0.1)
    async with asyncio.timeout(30):
        with pytest.raises(TimeoutError):
            await handled(harness, enveloped(Append(subject="s", number=1, pause=30)))


async def test_a_cancelled_subtask_is_a_failure_of_the_handler(harness: InboxHarness) -> None:
    """If it looked like a cancellation of the message itself, the message would never be finished."""

    async def awaiting_cancelled_task(command: Append, work: Work, ledger: Ledger) -> None:
        subtask = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(subtask.cancel)
        await subtask

    sent = enveloped(Append(subject="s", number=1))
    handling = harness.handling({Append: awaiting_cancelled_task})
    with pytest.raises(RuntimeError, match="cancelled"):
        await handling.handle(sent, handling.decode(sent))


async def test_a_cancelled_message_ends_at_once(harness: InboxHarness) -> None:
    task = asyncio.create_task(handled(harness, enveloped(Append(subject="s", number=1, pause=30))))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b'{"subject": 1, "number": 2}',
        b'{"subject": "\xff", "number": 2}',
        b'{"subject": "\\ud800", "number": 2}',
        b'{"subject": "s", "number": 1e999}',
        b'{"subject": "s", "number": ' + b"9" * 5000 + b"}",
        b'{"subject": "s", "number": 1' + b"[" * 50_000,
        b'{"subject": ' + b"[" * 50_000 + b"]" * 50_000 + b', "number": 1}',
        b"\xff\xfe\x00",
    ],
)
def test_an_invalid_body_is_undecodable_and_not_quoted(harness: InboxHarness, body: bytes) -> None:
    with pytest.raises(Undecodable) as caught:
        harness.handling(LEDGER).decode(envelope(body=body))
    assert len(str(caught.value)) < 300


def test_unknown_fields_are_ignored(harness: InboxHarness) -> None:
    sent = envelope(body=b'{"subject": "s", "number": 1, "from_the_future": {"a": [1]}}')
    assert harness.handling(LEDGER).decode(sent) == Append(subject="s", number=1)


@pytest.mark.parametrize(
    ("message", "topic"),
    [
        (envelope(wire=""), "ledger.commands"),
        (envelope(wire="ledger."), "ledger.commands"),
        (envelope(wire="nobody.no-such-command"), "ledger.commands"),
        (envelope(wire="nobody.no-such-event"), "ledger.events"),
        (envelope(wire="ledger.ada@example.com"), "ledger.commands"),
        (envelope(wire="ledger." + "a" * 101), "ledger.commands"),
        (enveloped(GetMarketingConsent(user_id="u")), "ledger.commands"),
        (enveloped(GetMarketingConsent(user_id="u")), "ledger.events"),
        (enveloped(Append(subject="s", number=1)), "ledger.events"),
    ],
)
def test_a_message_of_another_topic_is_undecodable(harness: InboxHarness, message: Envelope, topic: str) -> None:
    message.topic = topic
    with pytest.raises(Undecodable):
        harness.handling(LEDGER).decode(message)


@pytest.mark.parametrize(
    ("message", "topic"),
    [
        (envelope(wire="ledger.from-the-future"), "ledger.commands"),
        (envelope(wire="ledger.from-the-future"), "ledger.webhooks"),
        (envelope(wire="ledger.from-the-future"), "ledger.events"),
        (envelope(wire="mailer.from-the-future"), "mailer.events"),
        # The class is known, and only another release has its handler.
        (enveloped(Relay(subject="s", number=1)), "ledger.commands"),
        (enveloped(Total(subject="s")), "ledger.commands"),
    ],
)
def test_unknown_type_of_a_known_service_waits_for_a_newer_release(
    harness: InboxHarness, message: Envelope, topic: str
) -> None:
    message.topic = topic
    with pytest.raises(UnknownType):
        harness.handling({Append: append}).decode(message)


def test_an_event_without_a_handler_is_not_decoded(harness: InboxHarness) -> None:
    message = enveloped(Appended(subject="s", number=1))
    with pytest.raises(EventNotHandled):
        harness.handling(LEDGER).decode(message)


@pytest.mark.parametrize(
    ("headers", "topic", "skipped"),
    [
        ([("type", b"ledger.appended")], "ledger.events", True),
        ([("id", b"\xff"), ("type", b"ledger.appended"), ("type", b"ledger.append")], "ledger.events", True),
        ([("type", b"ledger.appended")], "ledger.commands", False),
        ([("type", b"ledger.posted")], "ledger.webhooks", False),
        # The release before wrote it to the topic of all events.
        ([("type", b"auth.audited")], "auth.events", True),
        ([("type", b"auth.audited")], "auth.audit", True),
        ([("type", b"auth.audited")], "billing.events", False),
        ([("type", b"ledger.append")], "ledger.commands", False),
        ([("type", b"ledger.from-the-future")], "ledger.events", False),
        ([("type", b"\xff")], "ledger.events", False),
        ([("type", None)], "ledger.events", False),
        ([], "ledger.events", False),
    ],
)
def test_an_event_without_a_handler_is_skipped_by_its_type_header(
    harness: InboxHarness, headers: list[tuple[str, Any]], topic: str, *, skipped: bool
) -> None:
    record = SimpleNamespace(topic=topic, partition=0, offset=0, key=None, value=None, headers=headers)
    assert harness.handling(LEDGER).skips(record, topic) is skipped


def test_an_event_with_a_handler_is_decoded(harness: InboxHarness) -> None:
    event: Message = Appended(subject="s", number=1)
    assert harness.handling(AUDIT).decode(enveloped(event)) == event


async def test_an_exception_of_the_handler_stores_nothing(harness: InboxHarness) -> None:
    sent = enveloped(Append(subject="s", number=1, fail=1))
    with pytest.raises(RuntimeError, match="failing on purpose"):
        await handled(harness, sent)
    assert await harness.row(sent.id) is None
    assert (await handled(harness, sent)).kind == DONE


async def test_a_version_conflict_raised_by_the_handler_runs_it_again(harness: InboxHarness) -> None:
    async def conflicting_once(command: Append, work: Work, ledger: Ledger) -> Any:
        ledger.runs[work.id] += 1
        if ledger.runs[work.id] == 1:
            raise VersionConflict
        return await LEDGER[Append](command, work, ledger)

    sent = enveloped(Append(subject="s", number=1))
    handling = harness.handling({Append: conflicting_once})
    assert (await handling.handle(sent, handling.decode(sent))).kind == DONE


@pytest.mark.parametrize(
    ("sent", "recorded_as"),
    [
        (Append(subject="new", number=1), "done"),
        (Append(subject="taken", number=1, unique="taken"), "entry_taken"),
        (Refuse(subject="s", how="forgotten"), "forgotten"),
        (Refuse(subject="s", how="remembered"), "remembered"),
        (Refuse(subject="s", how="unavailable"), None),
    ],
)
async def test_the_outcome_hook_commits_once_with_the_outcome(
    harness: InboxHarness, sent: Message, recorded_as: str | None
) -> None:
    recorded = harness.database["recorded"]

    def recording(handler: Handler) -> Handler:
        async def handle(message: Message, work: Work, ledger: Ledger) -> BaseModel | None:
            work.on_outcome(
                lambda refusal: work.insert(
                    recorded, {"_id": work.new_id("record"), "recorded_as": "done" if refusal is None else refusal.code}
                )
            )
            return await handler(message, work, ledger)

        return handle

    await handled(harness, enveloped(Append(subject="taken", number=0, unique="taken")))
    handling = harness.handling({kind: recording(handler) for kind, handler in LEDGER.items()})
    envelope = enveloped(sent)
    for _ in range(2):
        await handling.handle(envelope, handling.decode(envelope))

    assert [row["recorded_as"] async for row in recorded.find()] == ([] if recorded_as is None else [recorded_as])


async def test_the_reads_of_a_query_share_its_time_limit(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Total, "read_seconds", 1e-9)
    with pytest.raises(PyMongoError) as failure:
        await handled(harness, enveloped(Total(subject="s")))
    assert timed_out(failure.value)
    monkeypatch.setattr(Total, "read_seconds", 30.0)
    assert (await handled(harness, enveloped(Total(subject="s")))).kind == DONE


class TestWithoutSearch:
    """Handlers that run before the inbox is searched."""

    @pytest.fixture
    def searches(self, harness: InboxHarness, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """IDs of the messages that the inbox was searched for."""
        searched: list[str] = []
        find = harness.inbox.find

        async def find_and_record(message: Envelope) -> Outcome | None:
            searched.append(message.id)
            return await find(message)

        monkeypatch.setattr(harness.inbox, "find", find_and_record)
        return searched

    @staticmethod
    def new(number: int) -> Envelope:
        """Return a message that stays new for a minute, so that the test may be slow."""
        return replace(enveloped(Append(subject="s", number=number)), time=unix_milliseconds() + 60_000)

    @staticmethod
    async def handled(harness: InboxHarness, sent: Envelope) -> Outcome:
        """Deliver to a handler that adds a subject once, and refuses it when it exists."""

        @without_search
        async def add_subject(command: Append, work: Work, ledger: Ledger) -> None:
            if await ledger.subjects.find_one({"_id": command.subject}):
                raise SubjectTaken
            work.insert(ledger.subjects, {"_id": command.subject, "version": 1})
            work.publish(Appended(subject=command.subject, number=command.number))

        handling = harness.handling({Append: add_subject})
        return await handling.handle(sent, handling.decode(sent))

    async def test_a_new_message_is_not_searched_for(self, harness: InboxHarness, searches: list[str]) -> None:
        outcome = await self.handled(harness, self.new(1))
        assert (outcome.kind, searches) == (DONE, [])

    async def test_a_refusal_after_an_earlier_delivery_is_its_outcome(
        self, harness: InboxHarness, searches: list[str]
    ) -> None:
        sent = self.new(1)
        first = await self.handled(harness, sent)
        second = await self.handled(harness, sent)
        assert second.replayed
        assert (second.kind, second.messages) == (DONE, first.messages)
        assert searches == [sent.id]
        assert (await self.handled(harness, self.new(2))).kind == "conflict"

    async def test_an_earlier_delivery_is_found_at_the_commit(self, harness: InboxHarness, searches: list[str]) -> None:
        sent = self.new(1)
        first = await self.handled(harness, sent)
        await harness.database["subjects"].delete_many({})
        second = await self.handled(harness, sent)
        assert second.replayed
        assert second.messages == first.messages
        assert searches == [sent.id]
        assert await harness.database["subjects"].count_documents({}) == 0

    @pytest.mark.parametrize("fields", [{"fingerprint": "ab"}, {"time": unix_milliseconds() - 2_000}])
    async def test_a_probable_repeat_is_searched_for(
        self, harness: InboxHarness, searches: list[str], fields: dict[str, Any]
    ) -> None:
        sent = replace(self.new(1), **fields)
        assert (await self.handled(harness, sent)).kind == DONE
        assert searches == [sent.id]
