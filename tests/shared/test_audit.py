"""What comes of an operator's order or question is told to auth: once, and before the answer to a question leaves."""

import asyncio
from typing import get_args

import pytest

from shared.audit import action_of
from shared.bus import topics
from shared.bus.envelope import Envelope
from shared.bus.handling import Handlers
from shared.bus.inbox import Outcome
from shared.bus.topics import DAY, Topic
from shared.bus.work import Work
from shared.errors import Unavailable
from shared.ids import new_message_id
from shared.messages import ANONYMOUS, MESSAGES, SERVICE, Caller, Command, Message, Query
from shared.messages.auth.audit import Action, RecordAuditEntry
from tests.shared import bus_harness as stand_module
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.inbox_harness import InboxHarness, enveloped
from tests.shared.sample_services import TOPICS, Count, EntryTaken, Forgotten, Ledger

OPERATOR = Caller(kind="internal", client_ip="10.0.0.1")
USER = Caller(kind="user", user_id="user_ada", token_id="acstok_1")
AUDITED = {wire: kind for wire, kind in MESSAGES.items() if kind.audited and kind.__module__.startswith("shared.")}


class Amend(Command, wire="ledger.amend", audited=True):
    """Add an entry."""

    how: str = "done"


class Inspect(Query, wire="ledger.inspect", audited=True):
    """Count all entries."""

    how: str = "done"


async def amend(command: Amend, work: Work, ledger: Ledger) -> None:
    ledger.runs[work.id] += 1
    work.annotate(resource_id="entry_found")
    work.insert(ledger.entries, {"_id": work.new_id("entry"), "unique": command.how}, taken=EntryTaken)
    if command.how == "moved" and ledger.runs[work.id] == 1:
        work.delete(ledger.entries, "entry_nowhere", version=1)
    _refuse(command.how)


async def inspect(query: Inspect, work: Work, ledger: Ledger) -> Count:
    ledger.runs[work.id] += 1
    work.annotate(user_id="user_found")
    # A question has no effects, whatever its handler thinks.
    work.insert(ledger.entries, {"_id": work.new_id("entry")})
    work.publish(Amend())
    _refuse(query.how)
    return Count(entries=await ledger.entries.count_documents({}))


async def mislead(_command: Amend, work: Work, _ledger: Ledger) -> None:
    work.annotate(email="ada@example.com")


def _refuse(how: str) -> None:
    if how == "refused":
        raise Forgotten
    if how == "unavailable":
        raise Unavailable


HANDLERS: Handlers = {Amend: amend, Inspect: inspect}


async def delivered(bench: InboxHarness, sent: Envelope, handlers: Handlers = HANDLERS) -> Outcome:
    handling = bench.handling(handlers)
    return await handling.handle(sent, handling.decode(sent))


def told(outcome: Outcome) -> list[RecordAuditEntry]:
    """What auth is told."""
    return [RecordAuditEntry.model_validate_json(said.body) for said in outcome.messages]


def summary(outcome: Outcome) -> list[tuple[str, str | None]]:
    """Action and refusal of all that auth is told."""
    return [(entry.action, entry.refused_as) for entry in told(outcome)]


async def test_an_operators_command_is_audited_with_its_outcome(harness: InboxHarness) -> None:
    sent = enveloped(Amend(), caller=OPERATOR)
    outcome = await delivered(harness, sent)
    (said,) = outcome.messages
    (entry,) = told(outcome)
    assert (entry.action, entry.refused_as, entry.message_id) == ("amend", None, sent.id)
    assert (entry.resource_id, entry.user_id) == ("entry_found", None)
    assert (said.topic, said.caller) == ("auth.commands", OPERATOR)


async def test_the_audit_entry_is_stored_with_the_commands_outcome(harness: InboxHarness) -> None:
    sent = enveloped(Amend(), caller=OPERATOR)
    first, again = [await delivered(harness, sent) for _ in range(2)]
    row = await harness.row(sent.id)
    assert row is not None
    assert [said["id"] for said in row["messages"]] == [said.id for said in first.messages]
    assert again.replayed
    assert again.messages == first.messages
    assert harness.ledger().runs[sent.id] == 1


async def test_a_command_that_runs_twice_is_audited_once(harness: InboxHarness) -> None:
    sent = enveloped(Amend(how="moved"), caller=OPERATOR)
    assert summary(await delivered(harness, sent)) == [("amend", None)]
    assert harness.ledger().runs[sent.id] == 2


@pytest.mark.parametrize(("how", "code"), [("refused", "forgotten"), ("taken", "entry_taken")])
async def test_a_refusal_is_audited_with_its_code(
    harness: InboxHarness, how: str, code: str
) -> None:
    await harness.database["entries"].insert_one({"_id": "entry_1", "unique": "taken"})
    outcome = await delivered(harness, enveloped(Amend(how=how), caller=OPERATOR))
    assert summary(outcome) == [("amend", code)]


@pytest.mark.parametrize("message", [Amend(how="unavailable"), Inspect(how="unavailable")])
async def test_an_unavailable_refusal_is_not_audited(harness: InboxHarness, message: Message) -> None:
    outcome = await delivered(harness, enveloped(message, caller=OPERATOR))
    assert (outcome.kind, outcome.messages) == ("unavailable", [])


@pytest.mark.parametrize("caller", [ANONYMOUS, USER, SERVICE])
async def test_only_messages_with_the_internal_key_are_audited(harness: InboxHarness, caller: Caller) -> None:
    for message in (Amend(), Inspect()):
        assert (await delivered(harness, enveloped(message, caller=caller))).messages == []


@pytest.mark.parametrize(("how", "code"), [("done", None), ("refused", "forgotten")])
async def test_a_query_sends_only_its_audit_entry(
    harness: InboxHarness, how: str, code: str | None
) -> None:
    sent = enveloped(Inspect(how=how), caller=OPERATOR)
    first, again = [await delivered(harness, sent) for _ in range(2)]
    assert summary(first) == [("inspect", code)]
    assert told(first)[0].user_id == "user_found"
    # Delivered twice it is told under one id, and auth writes it once.
    assert [said.id for said in first.messages] == [said.id for said in again.messages]
    assert await harness.row(sent.id) is None
    assert await harness.database["entries"].count_documents({}) == 0


async def test_an_unknown_annotation_is_a_type_error(harness: InboxHarness) -> None:
    with pytest.raises(TypeError, match="has no fields email"):
        await delivered(harness, enveloped(Amend(), caller=OPERATOR), {Amend: mislead})


async def test_a_query_is_answered_after_kafka_has_its_audit_entry(
    kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stand_module.HANDLERS, "ledger", HANDLERS)
    bus = BusHarness(kafka_bootstrap, mongo_url, topic_prefix, database_prefix)
    async with bus, bus.running() as running:
        # There is no topic yet that it could be told on.
        one_id = new_message_id()
        asking = asyncio.create_task(bus.call(Inspect(), id=one_id, seconds=60, caller=OPERATOR))

        async def handled() -> bool:
            return running.ledger.runs[one_id] > 0

        await wait_until(handled)
        for _ in range(3):
            # Others' ways are as long, and they have their answers.
            assert (await bus.call(Inspect())).kind == "done"
        assert not asking.done()
        await topics.apply(kafka_bootstrap, prefix=topic_prefix, topics=(*TOPICS, Topic("auth.commands", 1, DAY)))
        assert (await asking).body == {"entries": 0}
        (record,) = await bus.records("auth.commands")
        assert RecordAuditEntry.model_validate_json(record.value).action == "inspect"


def test_every_audited_class_has_a_declared_action() -> None:
    assert {action_of(kind) for kind in AUDITED.values()} <= set(get_args(Action))
