"""Group commits: many works in one transaction, each with its own result."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY, Counter

from shared.bus.bulk_writes import MAX_COMMAND_BYTES, VersionConflict
from shared.bus.inbox import GROUP_SIZE, QUIET_TURNS, AlreadyHandled, Inbox, MessageIdReused, Outcome, WriteConflict
from shared.bus.work import Work
from shared.errors import Kind, Refusal
from shared.ids import new_message_id
from shared.messages import Sealed
from shared.messages.mailer.mails import SendMail
from shared.mongo import ensure_indexes
from tests.metrics import value
from tests.shared.inbox_harness import ROW_ENCRYPTION, SEALER, InboxHarness, envelope


class NameTaken(Refusal, kind=Kind.CONFLICT):
    pass


class AddressTaken(Refusal, kind=Kind.CONFLICT):
    pass


async def results_of(harness: InboxHarness, works: list[Work]) -> list[BaseException | None]:
    """Commit works at the same time; return the exception of each, or None."""
    return await asyncio.gather(*(harness.commit(work) for work in works), return_exceptions=True)


def naming(harness: InboxHarness, name: str, **fields: Any) -> Work:
    """Return a work that inserts a thing with a unique name."""
    work = harness.work(**fields)
    work.insert(harness.things, {"_id": work.id, "name": name, "version": 1}, taken=NameTaken)
    return work


async def test_works_ready_at_the_same_time_share_one_commit(harness: InboxHarness) -> None:
    works = [naming(harness, f"n{number}") for number in range(64)]
    assert await results_of(harness, works) == [None] * 64
    assert harness.commits() == (1, 64)
    assert await harness.things.count_documents({}) == 64
    assert all([await harness.row(work.id) for work in works])


async def test_works_ready_within_a_few_turns_of_the_loop_share_one_commit(harness: InboxHarness) -> None:
    async def commit_after(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await harness.commit(harness.work())

    await results_of(harness, [harness.work(), harness.work()])
    await asyncio.gather(*(commit_after(turns) for turns in range(0, 10 * QUIET_TURNS, QUIET_TURNS // 2)))
    assert harness.commits() == (2, 22)


async def test_a_metric_of_a_work_is_incremented_by_its_commit_only(harness: InboxHarness) -> None:
    counter = Counter("nest_test_commits", "Counter of this test.")
    await harness.things.insert_one({"_id": "theirs", "name": "taken"})
    done, refused = naming(harness, "free"), naming(harness, "taken")
    for work in (done, refused):
        work.count(counter)
    assert value("nest_test_commits_total") == 0
    await results_of(harness, [done, refused])
    assert value("nest_test_commits_total") == 1
    REGISTRY.unregister(counter)


async def test_works_that_wait_for_their_commit_are_a_metric(harness: InboxHarness) -> None:
    commits = [asyncio.create_task(harness.commit(naming(harness, f"n{number}"))) for number in range(5)]
    await asyncio.sleep(0)
    assert value("nest_commit_works_waiting", service=harness.database.name) == 5
    await asyncio.gather(*commits)
    assert value("nest_commit_works_waiting", service=harness.database.name) == 0


async def test_two_failing_works_do_not_affect_the_others_of_their_group(harness: InboxHarness) -> None:
    await harness.things.insert_many([{"_id": "theirs", "name": "n1"}, {"_id": "moved", "version": 7}])
    works = [naming(harness, f"n{number}") for number in range(63)]
    outdated = harness.work()
    outdated.replace(harness.things, {"_id": "moved", "version": 6, "changed": True}, version=6)
    works.insert(30, outdated)

    results = await results_of(harness, works)

    assert isinstance(results[1], NameTaken)
    assert isinstance(results[30], VersionConflict)
    assert [result for position, result in enumerate(results) if position not in (1, 30)] == [None] * 62
    assert await harness.things.count_documents({}) == 62 + 2
    assert await harness.things.find_one({"_id": "moved"}) == {"_id": "moved", "version": 7}
    assert await harness.row(works[1].id) is None
    assert await harness.row(outdated.id) is None


async def test_a_message_in_the_inbox_is_not_committed_again(harness: InboxHarness) -> None:
    first = naming(harness, "a")
    await harness.commit(first)
    repeat = harness.work(first.id)
    repeat.insert(harness.things, {"_id": "another", "version": 1})
    others = [naming(harness, f"n{number}") for number in range(5)]

    results = await results_of(harness, [repeat, *others])

    assert isinstance(results[0], AlreadyHandled)
    assert results[1:] == [None] * 5
    assert await harness.things.find_one({"_id": "another"}) is None


async def test_two_deliveries_at_the_same_time_take_effect_once(harness: InboxHarness) -> None:
    message_id = new_message_id()
    results = await results_of(harness, [naming(harness, name, id=message_id) for name in ("a", "b")])
    assert results[0] is None
    assert isinstance(results[1], AlreadyHandled)
    assert await harness.things.count_documents({}) == 1


@pytest.mark.parametrize(
    ("limit", "size"),
    [(150_000, 10_000), pytest.param(MAX_COMMAND_BYTES, 1_000_000, marks=pytest.mark.slow)],
    ids=["small", "whole"],
)
async def test_a_work_larger_than_a_command_is_committed_or_refused_as_a_whole(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch, limit: int, size: int
) -> None:
    """MongoDB and pymongo permit 16 MiB for a command."""
    monkeypatch.setattr("shared.bus.bulk_writes.MAX_COMMAND_BYTES", limit)
    await harness.things.insert_one({"_id": "theirs", "name": "taken"})
    for names, expected in (({17: "taken"}, NameTaken), ({17: "free"}, type(None))):
        work = harness.work()
        for number in range(18):
            thing = {"_id": number, "name": names.get(number, f"n{number}"), "text": "x" * size}
            work.insert(harness.things, thing, taken=NameTaken if number in names else AddressTaken)
        (result,) = await results_of(harness, [work])
        assert type(result) is expected
        assert await harness.things.count_documents({}) == (1 if result else 19)


async def test_two_works_on_one_document_do_not_share_a_commit(harness: InboxHarness) -> None:
    await harness.things.insert_one({"_id": "counter", "version": 1, "count": 0})
    works = [harness.work() for _ in range(2)]
    for work in works:
        work.replace(harness.things, {"_id": "counter", "count": 1}, version=1)
    results = await results_of(harness, works)
    assert results[0] is None
    assert isinstance(results[1], VersionConflict)
    assert await harness.things.find_one({"_id": "counter"}) == {"_id": "counter", "version": 2, "count": 1}


async def test_a_delete_requires_the_version_that_was_read(harness: InboxHarness) -> None:
    await harness.things.insert_many([{"_id": "a", "version": 1}, {"_id": "b", "version": 2}])
    works = [harness.work() for _ in range(2)]
    works[0].delete(harness.things, "a", version=1)
    works[1].delete(harness.things, "b", version=1)
    results = await results_of(harness, works)
    assert results[0] is None
    assert isinstance(results[1], VersionConflict)
    assert [found["_id"] async for found in harness.things.find()] == ["b"]


async def test_many_works_may_require_one_document_in_one_commit(harness: InboxHarness) -> None:
    await harness.things.insert_one({"_id": "application", "version": 3})
    works = [harness.work() for _ in range(20)]
    for number, work in enumerate(works):
        work.require_version(harness.things, "application", version=3)
        work.insert(harness.things, {"_id": number})
    commits = harness.commits()[0]
    assert await results_of(harness, works) == [None] * 20
    assert harness.commits()[0] - commits == 1
    assert await harness.things.count_documents({"_id": {"$type": "int"}}) == 20


async def test_a_required_version_must_match(harness: InboxHarness) -> None:
    await harness.things.insert_one({"_id": "application", "version": 3})
    works = [harness.work() for _ in range(3)]
    works[0].require_version(harness.things, "gone", version=1)
    works[1].require_version(harness.things, "application", version=2)
    works[2].require_version(harness.things, "application", version=3)
    results = await results_of(harness, works)
    assert [type(result) for result in results] == [VersionConflict, VersionConflict, type(None)]


async def test_no_dependent_is_inserted_after_its_document_was_deleted(harness: InboxHarness) -> None:
    other = harness.another()

    async def sign_up(application: str) -> None:
        while True:
            work = harness.work()
            work.require_version(harness.things, application, version=1)
            work.insert(harness.things, {"_id": work.id, "of": application})
            with suppress(WriteConflict):
                try:
                    await harness.commit(work)
                except VersionConflict:
                    if await harness.things.find_one({"_id": application}) is None:
                        return

    async def delete(application: str) -> int:
        while True:
            deletion = other.work()
            deletion.delete(other.things, application, version=1)
            with suppress(WriteConflict):
                await other.commit(deletion)
                return await other.things.count_documents({"of": application})

    stored = 0
    for number in range(300):
        if stored and number >= 30:
            break
        application = f"application{number}"
        await harness.things.insert_one({"_id": application, "version": 1})
        sign_ups = asyncio.gather(*(sign_up(application) for _ in range(3)))
        at_deletion = await delete(application)
        await sign_ups
        assert await harness.things.count_documents({"of": application}) == at_deletion
        stored += at_deletion
    assert stored, "no sign-up was committed before a deletion: the race did not happen"


async def test_of_two_instances_replacing_one_document_one_conflicts(harness: InboxHarness) -> None:
    other = harness.another()
    for number in range(20):
        document = {"_id": f"counter{number}", "version": 1}
        await harness.things.insert_one(document)
        works = [harness.work(), harness.work()]
        for work in works:
            work.replace(harness.things, {"_id": document["_id"], "by": work.id}, version=1)
        results = await asyncio.gather(harness.commit(works[0]), other.commit(works[1]), return_exceptions=True)
        winners = [work for work, result in zip(works, results, strict=True) if result is None]
        assert len(winners) == 1
        assert sum(isinstance(result, VersionConflict) for result in results) == 1
        assert await harness.things.find_one({"_id": document["_id"], "by": winners[0].id, "version": 2})


async def test_conflicting_groups_of_two_instances_commit_all_other_works(harness: InboxHarness) -> None:
    """Each group of 32 has one message that the other group has too."""
    other = harness.another()
    shared_id = new_message_id()
    mine = [naming(harness, f"m{number}") for number in range(31)] + [naming(harness, "both", id=shared_id)]
    theirs = [naming(harness, f"t{number}") for number in range(31)] + [naming(harness, "both", id=shared_id)]
    results = await asyncio.gather(results_of(harness, mine), results_of(other, theirs))
    assert results[0][:31] + results[1][:31] == [None] * 62
    last = [results[0][31], results[1][31]]
    assert last.count(None) == 1
    # The loser finds the inbox row at once, or conflicts and finds it in its next run.
    assert any(isinstance(result, AlreadyHandled | VersionConflict) for result in last)
    assert await harness.things.count_documents({"name": "both"}) == 1


async def test_an_unwritable_document_fails_only_its_own_work(harness: InboxHarness) -> None:
    unwritable: list[dict[str, Any]] = [
        {"_id": "a", "what": object()},
        {"_id": "b", "what": "\ud800"},
        {"_id": "c", "what": 1 << 70},
        {"_id": "d", "what": "x" * (17 << 20)},
        {"_id": {"a": 1}, "what": object()},
        {"_id": ["no", "list"]},
        {"what": "no id"},
    ]
    for document in unwritable:
        bad = harness.work()
        bad.insert(harness.things, document)
        good = [naming(harness, f"{bad.id}{number}") for number in range(3)]
        async with asyncio.timeout(20):
            results = await results_of(harness, [good[0], bad, *good[1:]])
        assert isinstance(results.pop(1), Exception)
        assert results == [None] * 3
        assert await harness.row(bad.id) is None
        async with asyncio.timeout(30):
            await harness.commit(naming(harness, f"{bad.id} after"))


async def test_of_two_inserts_the_rejected_one_names_the_refusal(harness: InboxHarness) -> None:
    addresses = harness.database["addresses"]
    await addresses.insert_one({"_id": "same"})
    work = harness.work()
    work.insert(harness.things, {"_id": "same"}, taken=NameTaken)
    work.insert(addresses, {"_id": "same"}, taken=AddressTaken)
    with pytest.raises(AddressTaken):
        await harness.commit(work)
    assert await harness.things.find_one({"_id": "same"}) is None


async def test_a_rejected_insert_without_a_refusal_is_a_version_conflict(harness: InboxHarness) -> None:
    await harness.things.insert_one({"_id": "theirs", "name": "a"})
    work = harness.work()
    work.insert(harness.things, {"_id": "mine", "name": "a"})
    with pytest.raises(VersionConflict):
        await harness.commit(work)


async def test_a_cancelled_commit_does_not_affect_the_others(harness: InboxHarness) -> None:
    works = [naming(harness, f"n{number}") for number in range(3)]
    tasks = [asyncio.create_task(harness.commit(work)) for work in works]
    await asyncio.sleep(0)
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert (results[0], results[2]) == (None, None)
    assert isinstance(results[1], asyncio.CancelledError)
    await harness.commit(naming(harness, "after"))


async def test_rows_hold_published_messages_with_sealed_secrets(harness: InboxHarness) -> None:
    work = harness.work(wire="ledger.reveal", body=b'{"secret":"a.sealed"}')
    work.publish(SendMail(key="k", template="welcome", to=Sealed.of("eve@example.com"), variables=Sealed.of("{}")))
    work.publish(
        SendMail(key="k", template="welcome", to=Sealed.of("bob@example.com"), variables=Sealed.of("{}")),
        at=work.now + timedelta(hours=1),
    )
    await harness.commit(work)
    row = await harness.row(work.id)
    timers = await harness.database[Inbox.TIMERS].find().to_list()
    assert row is not None
    assert b"example.com" not in repr((row, timers)).encode()
    (message_row,) = row["messages"]
    (timer_row,) = timers
    for fields, address in ((message_row, "eve@example.com"), (timer_row, "bob@example.com")):
        mail = SendMail.model_validate_json(fields["body"])
        assert SEALER.unseal_secret("mailer", mail.to) == address


async def test_a_stored_outcome_has_its_reply_and_messages(harness: InboxHarness) -> None:
    work = harness.work()
    work.publish(SendMail(key="k", template="welcome", to=Sealed.of("a"), variables=Sealed.of("{}")), id="f" * 32)
    await harness.commit(work, b'{"n":1}')
    found = await harness.inbox.find(work.cause)
    assert found is not None
    assert (found.kind, found.body, found.replayed) == ("done", b'{"n":1}', True)
    assert [message.id for message in found.messages] == ["f" * 32]
    assert found.messages == work.immediate()


async def test_a_different_fingerprint_is_a_reused_message_id(harness: InboxHarness) -> None:
    work = harness.work(fingerprint="aa" * 32)
    await harness.commit(work)
    assert await harness.inbox.find(envelope(work.id, fingerprint="aa" * 32, body=b"sealed anew")) is not None
    with pytest.raises(MessageIdReused):
        await harness.inbox.find(envelope(work.id, fingerprint="bb" * 32))


async def test_without_a_fingerprint_the_bodies_are_compared(harness: InboxHarness) -> None:
    work = harness.work(body=b'{"a":1}')
    await harness.commit(work)
    assert await harness.inbox.find(envelope(work.id, body=b'{"a":1}')) is not None
    with pytest.raises(MessageIdReused):
        await harness.inbox.find(envelope(work.id, body=b'{"a":2}'))


async def test_two_delayed_messages_with_one_id_make_one_timer(harness: InboxHarness) -> None:
    works = [harness.work() for _ in range(2)]
    for work in works:
        mail = SendMail(key="k", template="welcome", to=Sealed.of("a"), variables=Sealed.of("{}"))
        work.publish(mail, at=work.now + timedelta(hours=1), id="e" * 32)
    assert await results_of(harness, works) == [None, None]
    assert await harness.database[Inbox.TIMERS].count_documents({}) == 1


async def test_more_works_than_a_group_takes_are_all_committed(harness: InboxHarness) -> None:
    assert await results_of(harness, [naming(harness, f"n{number}") for number in range(200)]) == [None] * 200
    commits, works = harness.commits()
    assert works == 200
    assert commits >= 4


async def test_rows_outlive_the_retention(harness: InboxHarness) -> None:
    indexes = await harness.database[Inbox.COLLECTION].index_information()
    assert indexes["at_1"]["expireAfterSeconds"] > timedelta(days=8).total_seconds()


async def test_a_changed_retention_changes_the_index(harness: InboxHarness) -> None:
    for days in (1, 30):
        inbox = Inbox(
            harness.client, harness.database, retention=timedelta(days=days), service="t", encryption=ROW_ENCRYPTION
        )
        await ensure_indexes(harness.database, inbox.indexes())
        indexes = await harness.database[Inbox.COLLECTION].index_information()
        assert indexes["at_1"]["expireAfterSeconds"] >= timedelta(days=days).total_seconds()
        assert indexes["at_1"]["expireAfterSeconds"] < timedelta(days=days + 1).total_seconds()


async def test_an_outcome_without_a_body_is_stored(harness: InboxHarness) -> None:
    work = harness.work()
    await harness.inbox.commit(work, Outcome(body=None))
    found = await harness.inbox.find(work.cause)
    assert found is not None
    assert found.body is None


async def test_a_commit_right_after_another_succeeds(harness: InboxHarness) -> None:
    async with asyncio.timeout(10):
        for _ in range(3):
            # Starts at the moment when the committer of the previous one ends.
            await harness.commit(harness.work())


async def test_a_rejected_insert_beside_a_replace_names_the_refusal(harness: InboxHarness) -> None:
    await harness.commit(naming(harness, "ada"))
    await harness.things.insert_one({"_id": "other", "version": 1})
    work = naming(harness, "ada")
    work.replace(harness.things, {"_id": "other"}, version=1)

    with pytest.raises(NameTaken):
        await harness.commit(work)


async def test_works_without_waiting_callers_share_a_commit_after_the_interval(harness: InboxHarness) -> None:
    background = with_interval(harness, 0.2)
    await background.commit(background.work())
    began = asyncio.get_running_loop().time()
    await results_of(background, [background.work() for _ in range(5)])
    assert asyncio.get_running_loop().time() - began > 0.1
    assert harness.commits() == (2, 6)


async def test_effect_outside_of_a_work_ends_the_interval(harness: InboxHarness) -> None:
    background = with_interval(harness, 60.0)
    await background.commit(background.work())
    sent = background.work()
    sent.commit_at_once()
    async with asyncio.timeout(10):
        await results_of(background, [background.work(), sent])
    assert harness.commits() == (2, 3)


@pytest.mark.parametrize(("others", "fields"), [(1, {"reply_to": 1}), (GROUP_SIZE - 1, {})], ids=["caller", "full"])
async def test_a_waiting_caller_or_a_full_group_ends_the_interval(
    harness: InboxHarness, others: int, fields: dict[str, Any]
) -> None:
    background = with_interval(harness, 60.0)
    await background.commit(background.work())
    async with asyncio.timeout(10):
        await results_of(background, [background.work(), *(background.work(**fields) for _ in range(others))])
    assert harness.commits() == (2, 2 + others)


def with_interval(harness: InboxHarness, seconds: float) -> InboxHarness:
    """Return another instance, whose inbox commits works without waiting callers at most once in this time."""
    another = harness.another()
    another.inbox = Inbox(
        harness.client,
        harness.database,
        retention=timedelta(days=8),
        service=harness.database.name,
        encryption=ROW_ENCRYPTION,
        background_interval=seconds,
    )
    return another
