"""Commits that MongoDB rejects, interrupts or leaves unacknowledged take effect once."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from services.embedded.mongo import EmbeddedMongo
from shared.bus.inbox import DONE, Outcome
from tests.shared.inbox_harness import InboxHarness, enveloped, inbox_harness
from tests.shared.sample_services import LEDGER, Append

WORKS = 20


@pytest.fixture(scope="module")
async def mongo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedMongo]:
    """A MongoDB with fail points."""
    async with EmbeddedMongo(tmp_path_factory.mktemp("mongo"), test_commands=True) as own:
        yield own


@pytest.fixture
async def harness(mongo: EmbeddedMongo, unique: Any) -> AsyncIterator[InboxHarness]:
    """An inbox on the MongoDB with fail points."""
    # After a step-down error the driver waits for a heartbeat; a real step-down sends one at once.
    async with inbox_harness(f"{mongo.url}&heartbeatFrequencyMS=500", f"{unique()}inbox") as harness:
        yield harness


class FailPoint:
    """MongoDB fail point: makes commands of one application fail."""

    def __init__(self, admin: AsyncMongoClient[dict[str, Any]], application: str) -> None:
        self._admin = admin.admin
        self._application = application
        self._before = 0

    async def set(self, times: int, *commands: str, **options: Any) -> None:
        """Let the commands fail this many times."""
        self._before = (await self._command("off"))["count"]
        await self._command({"times": times}, failCommands=commands, appName=self._application, **options)

    async def set_after(self, succeeded: int, *commands: str, **options: Any) -> None:
        """Let the commands fail for good after so many have succeeded."""
        self._before = (await self._command("off"))["count"]
        await self._command({"skip": succeeded}, failCommands=commands, appName=self._application, **options)

    async def hit(self) -> int:
        """Disable the fail point; return how many commands failed."""
        return int((await self._command("off"))["count"]) - self._before

    async def _command(self, mode: Any, **data: Any) -> dict[str, Any]:
        more = {"data": data} if data else {}
        return await self._admin.command({"configureFailPoint": "failCommand", "mode": mode, **more})


@pytest.fixture
async def failing(mongo: EmbeddedMongo, harness: InboxHarness) -> AsyncIterator[FailPoint]:
    """Fail point for the commands of the inbox."""
    async with AsyncMongoClient[dict[str, Any]](mongo.url) as admin:
        point = FailPoint(admin, harness.database.name)
        yield point
        await point.hit()


async def handle_all(harness: InboxHarness, count: int = WORKS) -> list[Outcome]:
    """Handle commands with retries, as the bus does."""
    handling = harness.handling(LEDGER)

    async def handle(number: int) -> Outcome:
        sent = enveloped(Append(subject=f"s{number}", number=number, events=2))
        for _ in range(20):
            try:
                return await handling.handle(sent, handling.decode(sent))
            except Exception as failure:  # noqa: BLE001 -- any failure is retried
                last = failure
                await asyncio.sleep(0.05)
        raise last

    return await asyncio.gather(*(handle(number) for number in range(count)))


async def assert_effects(harness: InboxHarness, outcomes: list[Outcome]) -> None:
    assert {outcome.kind for outcome in outcomes} == {DONE}
    numbers = [entry["number"] async for entry in harness.database["entries"].find()]
    assert sorted(numbers) == list(range(len(outcomes)))
    rows = await harness.database["inbox"].find().to_list()
    stored = {message["id"] for row in rows for message in row["messages"]}
    assert stored == {message.id for outcome in outcomes for message in outcome.messages}
    assert len(stored) == 2 * len(outcomes)


FAULTS: dict[str, dict[str, Any]] = {
    "a lost connection": {"closeConnection": True},
    "a write conflict": {"errorCode": 112},
    "a primary that steps down": {"errorCode": 91},
    "an unacknowledged commit": {"writeConcernError": {"code": 91, "errmsg": "Replication is being shut down"}},
    "interrupted": {"errorCode": 11601},
    "a time limit exceeded": {"errorCode": 50},
}


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failing_commit_takes_effect_once(
    harness: InboxHarness, failing: FailPoint, fault: str, times: int
) -> None:
    await failing.set(times, "commitTransaction", **FAULTS[fault])
    outcomes = await handle_all(harness)
    assert await failing.hit() >= 1, "the fault did not happen"
    await assert_effects(harness, outcomes)


@pytest.mark.parametrize("command", ["insert", "update", "find", "abortTransaction"])
@pytest.mark.parametrize("fault", ["a lost connection", "a write conflict", "a primary that steps down"])
async def test_a_failing_statement_takes_effect_once(
    harness: InboxHarness, failing: FailPoint, command: str, fault: str
) -> None:
    for number in range(3):  # documents to update
        await harness.database["subjects"].insert_one({"_id": f"s{number}", "numbers": [], "version": 1})
    # Only a failing transaction is aborted.
    commands = ("abortTransaction", "insert") if command == "abortTransaction" else (command,)
    await failing.set(3, *commands, **FAULTS[fault])
    outcomes = await handle_all(harness)
    assert await failing.hit() >= 1, "the fault did not happen"
    await assert_effects(harness, outcomes)


async def test_a_transaction_of_a_cut_connection_is_killed(harness: InboxHarness, failing: FailPoint) -> None:
    """The inbox row is written, then the connection is lost, so that MongoDB receives no abort."""
    await harness.database["subjects"].insert_one({"_id": "s0", "numbers": [], "version": 1})
    await failing.set(4, "update", "abortTransaction", closeConnection=True)
    async with asyncio.timeout(30):
        outcomes = await handle_all(harness, 1)
    assert await failing.hit() >= 2, "the fault did not happen"
    await assert_effects(harness, outcomes)


async def test_an_outage_during_single_commits_is_waited_for_once(mongo: EmbeddedMongo, unique: Any) -> None:
    """A duplicate key makes the works of the group commit one by one; then MongoDB stops answering."""
    async with inbox_harness(mongo.url, f"{unique()}inbox", timeout=1.0) as harness:
        await harness.things.insert_one({"_id": "theirs", "name": "n0"})
        works = [harness.work() for _ in range(12)]
        for number, work in enumerate(works):
            work.insert(harness.things, {"_id": work.id, "name": f"n{number}"})
        async with AsyncMongoClient[dict[str, Any]](mongo.url) as admin:
            point = FailPoint(admin, harness.database.name)
            # The group's inbox rows and the insert with the duplicate key succeed, nothing after them.
            await point.set_after(2, "insert", blockConnection=True, blockTimeMS=2000)
            started = time.monotonic()
            results = await asyncio.gather(*(harness.commit(work) for work in works), return_exceptions=True)
            took = time.monotonic() - started
            assert await point.hit() >= 1, "the fault did not happen"
    assert all(isinstance(result, PyMongoError) for result in results)
    assert took < 6, "the works waited one after the other"
