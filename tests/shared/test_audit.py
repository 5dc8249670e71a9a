"""Audit entries of operators' commands and queries."""

import asyncio
from typing import get_args

import pytest

from shared.audit import action_of
from shared.bus import topics
from shared.bus.envelope import Envelope
from shared.bus.handling import Handlers
from shared.bus.inbox import Outcome
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import DAY, Topic
from shared.bus.work import Work
from shared.errors import Unavailable
from shared.ids import new_message_id
from shared.messages import ANONYMOUS, MESSAGES, SERVICE, Caller, Command, Message, Query
from shared.messages.auth.audit import Action, RecordAuditEntry
from tests.shared import bus_harness
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
    # Ignored, because a query has no effects.
    work.insert(ledger.entries, {"_id": work.new_id("entry")})
    work.publish(Amend())
    _refuse(query.how)
    return Count(entries=await ledger.entries.count_documents({}))


async def annotating_email(_command: Amend, work: Work, _ledger: Ledger) -> None:
    work.annotate(email="ada@example.com")


def _refuse(how: str) -> None:
    if how == "refused":
        raise Forgotten
    if how == "unavailable":
        raise Unavailable


HANDLERS: Handlers = {Amend: amend, Inspect: inspect}


async def delivered(harness: InboxHarness, sent: Envelope, handlers: Handlers = HANDLERS) -> Outcome:
    handling = harness.handling(handlers)
    return await handling.handle(sent, handling.decode(sent))


def entries(outcome: Outcome) -> list[RecordAuditEntry]:
    """Return the audit entries of an outcome."""
    return [RecordAuditEntry.model_validate_json(message.body) for message in outcome.messages]


def summary(outcome: Outcome) -> list[tuple[str, str | None]]:
    """Return action and refusal of the audit entries."""
    return [(entry.action, entry.refused_as) for entry in entries(outcome)]


async def test_an_operators_command_is_audited_with_its_outcome(harness: InboxHarness) -> None:
    sent = enveloped(Amend(), caller=OPERATOR)
    outcome = await delivered(harness, sent)
    (message,) = outcome.messages
    (entry,) = entries(outcome)
    assert (entry.action, entry.refused_as, entry.message_id) == ("amend", None, sent.id)
    assert (entry.resource_id, entry.user_id) == ("entry_found", None)
    assert (message.topic, message.caller) == ("auth.service-commands", OPERATOR)


async def test_the_audit_entry_is_stored_with_the_commands_outcome(harness: InboxHarness) -> None:
    sent = enveloped(Amend(), caller=OPERATOR)
    first, again = [await delivered(harness, sent) for _ in range(2)]
    row = await harness.row(sent.id)
    assert row is not None
    assert [message["id"] for message in row["messages"]] == [message.id for message in first.messages]
    assert again.replayed
    assert again.messages == first.messages
    assert harness.ledger().runs[sent.id] == 1


async def test_a_command_that_runs_twice_is_audited_once(harness: InboxHarness) -> None:
    sent = enveloped(Amend(how="moved"), caller=OPERATOR)
    assert summary(await delivered(harness, sent)) == [("amend", None)]
    assert harness.ledger().runs[sent.id] == 2


@pytest.mark.parametrize(("how", "code"), [("refused", "forgotten"), ("taken", "entry_taken")])
async def test_a_refusal_is_audited_with_its_code(harness: InboxHarness, how: str, code: str) -> None:
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
async def test_a_query_sends_only_its_audit_entry(harness: InboxHarness, how: str, code: str | None) -> None:
    sent = enveloped(Inspect(how=how), caller=OPERATOR)
    first, again = [await delivered(harness, sent) for _ in range(2)]
    assert summary(first) == [("inspect", code)]
    assert entries(first)[0].user_id == "user_found"
    # Both deliveries send the entry under one message ID, so auth writes it once.
    assert [message.id for message in first.messages] == [message.id for message in again.messages]
    assert await harness.row(sent.id) is None
    assert await harness.database["entries"].count_documents({}) == 0


async def test_an_unknown_annotation_is_a_type_error(harness: InboxHarness) -> None:
    with pytest.raises(TypeError, match="has no fields email"):
        await delivered(harness, enveloped(Amend(), caller=OPERATOR), {Amend: annotating_email})


async def test_a_query_is_answered_after_kafka_has_its_audit_entry(
    kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bus_harness.HANDLERS, "ledger", HANDLERS)
    bus = BusHarness(kafka_bootstrap, mongo_url, topic_prefix, database_prefix)
    async with bus, bus.running() as running:
        # The topic of the audit entry does not exist yet.
        message_id = new_message_id()
        call = asyncio.create_task(bus.call(Inspect(), id=message_id, seconds=60, caller=OPERATOR))

        async def handled() -> bool:
            return running.ledger.runs[message_id] > 0

        await wait_until(handled)
        for _ in range(3):
            # Queries that are not audited get their replies.
            assert (await bus.call(Inspect())).kind == "done"
        assert not call.done()
        await topics.apply(
            KafkaConnection(kafka_bootstrap),
            prefix=topic_prefix,
            topics=(*TOPICS, Topic("auth.service-commands", 1, DAY)),
        )
        assert (await call).body == {"entries": 0}
        (record,) = await bus.records("auth.service-commands")
        assert RecordAuditEntry.model_validate_json(record.value).action == "inspect"


def test_every_audited_class_has_a_declared_action() -> None:
    assert {action_of(kind) for kind in AUDITED.values()} <= set(get_args(Action))
