"""Combined lookups of documents."""

import asyncio
from datetime import UTC, datetime

import pytest
from pymongo.errors import PyMongoError

from shared.batch_loader import MAX_VALUES, BatchLoader
from shared.mongo import connect, database, time_limit
from tests.shared.inbox_harness import InboxHarness


async def queries(harness: InboxHarness) -> int:
    """Number of queries on the collection that the server has executed."""
    stats = await harness.client.admin.command("top")
    name = f"{harness.database.name}.things"
    return int(stats["totals"].get(name, {"queries": {"count": 0}})["queries"]["count"])


async def test_each_lookup_gets_its_own_document(harness: InboxHarness) -> None:
    await harness.things.insert_many([{"_id": str(number), "kind": number % 2} for number in range(10)])
    loader = BatchLoader(harness.things)
    found = await asyncio.gather(*(loader.find_one(str(number)) for number in range(12)))
    assert found == [{"_id": str(number), "kind": number % 2} for number in range(10)] + [None, None]


async def test_several_documents_may_have_the_value(harness: InboxHarness) -> None:
    await harness.things.insert_many([{"_id": str(number), "kind": str(number % 2)} for number in range(10)])
    loader = BatchLoader(harness.things, "kind", {"_id": {"$ne": "0"}})
    even, odd, none = await asyncio.gather(*(loader.find(kind) for kind in ("0", "1", "2")))
    assert sorted(document["_id"] for document in even) == ["2", "4", "6", "8"]
    assert len(odd) == 5
    assert none == []


async def test_concurrent_lookups_share_one_query(harness: InboxHarness) -> None:
    await harness.things.insert_one({"_id": "a"})
    loader = BatchLoader(harness.things)
    before = await queries(harness)
    await asyncio.gather(*(loader.find_one(str(number)) for number in range(100)))
    assert await queries(harness) - before == 1


async def test_lookups_during_a_query_share_the_next_one(harness: InboxHarness) -> None:
    await harness.things.insert_many([{"_id": str(number)} for number in range(20)])
    loader = BatchLoader(harness.things, where={"$where": "if (this._id == '0') sleep(100); return true"})
    before = await queries(harness)
    lookups = [asyncio.create_task(loader.find_one("0"))]
    for number in range(1, 20):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        lookups.append(asyncio.create_task(loader.find_one(str(number))))
    assert await asyncio.gather(*lookups) == [{"_id": str(number)} for number in range(20)]
    assert await queries(harness) - before <= 3


async def test_a_slow_query_does_not_hold_up_the_next_one(harness: InboxHarness) -> None:
    await harness.things.insert_many([{"_id": "slow"}, {"_id": "fast"}])
    loader = BatchLoader(harness.things, where={"$where": "if (this._id == 'slow') sleep(500); return true"})
    slow = asyncio.create_task(loader.find_one("slow"))
    await asyncio.sleep(0.01)
    assert await loader.find_one("fast") == {"_id": "fast"}
    assert not slow.done()
    assert await slow == {"_id": "slow"}


async def test_more_values_than_one_query_takes_are_all_found(harness: InboxHarness) -> None:
    count = 2 * MAX_VALUES + 10
    await harness.things.insert_many([{"_id": str(number)} for number in range(count)])
    loader = BatchLoader(harness.things)
    found = await asyncio.gather(*(loader.find_one(str(number)) for number in range(count)))
    assert found == [{"_id": str(number)} for number in range(count)]


async def test_a_lookup_over_a_broken_connection_is_repeated(harness: InboxHarness) -> None:
    await harness.things.insert_one({"_id": "a"})
    loader = BatchLoader(harness.things)
    for _ in range(3):
        assert await loader.find_one("a") is not None
        (server,) = (await harness.client._get_topology())._servers.values()
        for connection in server.pool.conns:
            connection.conn.get_conn.transport.abort()
        assert await loader.find_one("a") == {"_id": "a"}


async def test_dates_are_read_in_utc(harness: InboxHarness) -> None:
    at = datetime(2026, 11, 30, 12, tzinfo=UTC)
    await harness.things.insert_one({"_id": "a", "at": at})
    found = await BatchLoader(harness.things).find_one("a")
    assert found is not None
    assert (found["at"], found["at"].tzinfo) == (at, UTC)


async def test_a_lookup_finds_a_document_inserted_before_it(harness: InboxHarness) -> None:
    loader = BatchLoader(harness.things)
    for number in range(50):
        early = asyncio.create_task(loader.find_one("other"))
        await asyncio.sleep(0)
        await harness.things.insert_one({"_id": str(number)})
        assert await loader.find_one(str(number)) is not None
        await early


async def test_a_cancelled_lookup_does_not_affect_the_others(harness: InboxHarness) -> None:
    await harness.things.insert_one({"_id": "a"})
    loader = BatchLoader(harness.things)
    tasks = [asyncio.create_task(loader.find_one("a")) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [{"_id": "a"}] * 2


async def test_a_failed_query_fails_all_its_lookups_and_no_later_one(harness: InboxHarness) -> None:
    unreachable = connect("mongodb://127.0.0.1:9/?replicaSet=rs0", application="test", timeout=0.2)
    try:
        loader = BatchLoader(database(unreachable, "test")["things"])
        for _ in range(2):
            failed = await asyncio.gather(*(loader.find_one("a") for _ in range(3)), return_exceptions=True)
            assert all(isinstance(each, PyMongoError) for each in failed)
    finally:
        await unreachable.close()


async def test_a_value_can_not_be_an_operator(harness: InboxHarness) -> None:
    await harness.things.insert_one({"_id": "a"})
    with pytest.raises(TypeError):
        await BatchLoader(harness.things).find_one({"$ne": None})  # type: ignore[arg-type]


async def test_a_combined_lookup_does_not_have_the_time_limit_of_its_first_caller(harness: InboxHarness) -> None:
    await harness.things.insert_one({"_id": "a"})
    loader = BatchLoader(harness.things)
    with time_limit(1e-9):
        first = asyncio.create_task(loader.find_one("a"))
    assert await asyncio.gather(first, loader.find_one("a")) == [{"_id": "a"}] * 2
