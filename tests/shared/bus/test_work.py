from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from shared.bus.work import Delete, Insert, Replace, Work
from shared.errors import Refusal
from shared.ids import Ids, new_message_id
from shared.messages import Caller
from shared.mongo import Collection
from tests.shared.inbox_harness import SEALER, envelope
from tests.shared.sample_services import Append, Appended

AT = datetime(2026, 11, 21, 6, 5, 0, 123_456, tzinfo=UTC)


@pytest.fixture
async def things() -> Any:
    """A collection without a server."""
    async with AsyncMongoClient[dict[str, Any]]("mongodb://127.0.0.1:9", connect=False) as client:
        yield client["nowhere"]["things"]


def new_work(**fields: Any) -> Work:
    return Work(envelope(**fields), now=AT, ids=Ids("test"), sealer=SEALER)


def test_a_work_has_the_attributes_of_its_message() -> None:
    caller = Caller(kind="user", user_id="u")
    work = new_work(id="1" * 32, key="k", caller=caller)
    assert (work.id, work.key, work.caller) == ("1" * 32, "k", caller)
    assert work.new_id("user").startswith("test_user_")


def test_resources_have_the_same_ids_at_every_run_of_the_handler() -> None:
    def ids(**fields: Any) -> list[str]:
        work = new_work(**{"id": "1" * 32, "time": 1_700_000_000_000, **fields})
        return [work.new_id("user"), work.new_id("user"), work.new_id("client")]

    assert ids() == ids()
    assert len({*ids(), *ids(id="2" * 32), *ids(time=1_700_000_000_001)}) == 9


def test_now_has_whole_milliseconds() -> None:
    assert new_work().now == AT.replace(microsecond=123_000)


def test_a_replaced_document_gets_the_next_version(things: Collection) -> None:
    work = new_work()
    document = {"_id": "a", "version": 3}
    work.replace(things, document, version=3)
    assert work.writes == [Replace(things, {"_id": "a", "version": 4}, 3)]
    assert document == {"_id": "a", "version": 3}


def test_writes_are_collected_in_order(things: Collection) -> None:
    work = new_work()
    work.insert(things, {"_id": "a"}, taken=Refusal)
    work.delete(things, "b", version=2)
    assert work.writes == [Insert(things, {"_id": "a"}, Refusal), Delete(things, "b", 2)]


def test_two_runs_of_a_message_derive_the_same_message_ids() -> None:
    cause = new_message_id()
    runs = [new_work(id=cause) for _ in range(2)]
    for run in runs:
        for number in range(3):
            run.publish(Appended(key="s", subject="s", number=number))
    ids = [[message.id for message in run.immediate()] for run in runs]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3


def test_works_of_different_messages_derive_different_ids() -> None:
    ids = {new_work().publish(Appended(key="s", subject="s", number=1)) for _ in range(100)}
    assert len(ids) == 100


def test_a_published_message_has_caller_trace_and_time_of_its_cause() -> None:
    work = new_work(caller=Caller(kind="user", user_id="u"), trace="00-1-2-01")
    work.publish(Appended(key="s", subject="s", number=1), id="e" * 32)
    (sent,) = work.immediate()
    assert (sent.id, sent.wire, sent.topic, sent.key) == ("e" * 32, "ledger.appended", "ledger.events", "s")
    assert (sent.caller, sent.trace, sent.reply_to) == (Caller(kind="user", user_id="u"), "00-1-2-01", None)
    assert sent.time == int(AT.timestamp() * 1000)


def test_commands_carry_the_callers_ip_address_and_events_do_not() -> None:
    caller = Caller(kind="user", user_id="u", client_ip="203.0.113.77")
    work = new_work(caller=caller)
    work.publish(Append(key="s", subject="s", number=1))
    work.publish(Appended(key="s", subject="s", number=1))
    command, event = work.immediate()
    assert command.caller == caller
    assert event.caller == Caller(kind="user", user_id="u")


def test_a_delayed_message_is_not_sent_immediately() -> None:
    work = new_work()
    work.publish(Appended(key="s", subject="s", number=1), at=AT + timedelta(hours=1))
    work.publish(Appended(key="s", subject="s", number=2))
    assert [message.body for message in work.immediate()] == [b'{"subject":"s","number":2,"part":0}']
    ((at, delayed),) = work.timers
    assert (at, delayed.body) == (AT + timedelta(hours=1), b'{"subject":"s","number":1,"part":0}')
    assert len(work.published) == 2


def test_a_forwarded_command_has_the_reply_address() -> None:
    work = new_work(reply_to=7, reply_id="r", deadline=99)
    work.forward(Append(key="s", subject="s", number=1))
    (forwarded,) = work.immediate()
    assert not work.replies
    assert (forwarded.reply_to, forwarded.reply_id, forwarded.deadline) == (7, "r", 99)


def test_discarding_the_state_removes_writes_and_messages(things: Collection) -> None:
    work = new_work()
    work.insert(things, {"_id": "a"})
    work.publish(Appended(key="s", subject="s", number=1))
    work.publish(Appended(key="s", subject="s", number=1), at=AT)
    work.forward(Append(subject="s", number=1))
    work.discard_state()
    assert (work.writes, work.timers, work.immediate(), work.replies) == ([], [], [], True)


def test_the_outcome_hook_runs_with_the_outcome(things: Collection) -> None:
    work = new_work()
    work.on_outcome(lambda refusal: work.insert(things, {"_id": "done" if refusal is None else refusal.code}))
    work.annotate(subject="s")
    work.insert(things, {"_id": "a"})
    assert work.writes == [Insert(things, {"_id": "a"}, None)]
    work.run_outcome_hook(None)
    assert work.writes == [Insert(things, {"_id": "a"}, None), Insert(things, {"_id": "done"}, None)]
    work.discard_state()
    work.run_outcome_hook(Refusal())
    assert work.writes == [Insert(things, {"_id": "refused"}, None)]
    assert work.annotations == {"subject": "s"}


def test_a_second_outcome_hook_replaces_the_first(things: Collection) -> None:
    work = new_work()
    work.on_outcome(lambda _: work.insert(things, {"_id": "outer"}))
    work.on_outcome(lambda _: work.insert(things, {"_id": "inner"}))
    work.run_outcome_hook(None)
    assert work.writes == [Insert(things, {"_id": "inner"}, None)]
