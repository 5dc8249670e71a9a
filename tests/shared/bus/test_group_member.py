"""Static membership: restarts, stops, blocked loops and two processes with one name."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest

from shared.bus.group_member import SESSION_SECONDS
from tests.faults.worker_process import worker
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import Append


async def members(bus: BusHarness, group: str = "ledger") -> list[str]:
    """Return the member IDs of a consumer group, each of which begins with the instance name."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bus.bootstrap)
    await admin.start()
    try:
        (response,) = await admin.describe_consumer_groups([bus.prefix + group])
        return sorted(member[0] for member in response.groups[0][5])
    finally:
        await admin.close()


async def subject_of_each_partition(bus: BusHarness) -> list[str]:
    """Return one subject for each partition of the commands."""
    found: dict[int, str] = {}
    for number in range(100):
        found.setdefault(await bus.partition_of(str(number)), str(number))
    return sorted(found.values())


async def call_all(bus: BusHarness, subjects: list[str], number: int) -> float:
    """Append to each subject and return the longest time until a reply."""

    async def call(subject: str) -> float:
        started = time.monotonic()
        reply = await bus.call(Append(subject=subject, number=number, key=subject), seconds=30)
        assert reply.kind == "done"
        return time.monotonic() - started

    return max(await asyncio.gather(*map(call, subjects)))


async def test_a_killed_process_gets_its_partitions_back_without_a_rebalance(bus: BusHarness, tmp_path: Path) -> None:
    subjects = await subject_of_each_partition(bus)
    async with worker("ledger", bus.environment(), tmp_path) as ledger, bus.running() as other:
        await ledger.start()
        await wait_until(lambda: has_partitions(other.consumer, 4), 30)  # two of ledger.commands, and so on
        await call_all(bus, subjects, 0)
        before, trackers = await members(bus), other.consumer._trackers
        await ledger.kill()
        await ledger.start()
        assert await call_all(bus, subjects, 1) < SESSION_SECONDS
        assert other.consumer._trackers is trackers, "the surviving process had to rebalance"
        after = await members(bus)
        assert len(before) == len(after) == 2
        assert {name[:-37] for name in before} == {name[:-37] for name in after}


async def has_partitions(consumer: Any, count: int) -> bool:
    return 0 < len(consumer.assigned) <= count


async def test_a_stopped_process_leaves_its_group_at_once(bus: BusHarness) -> None:
    subjects = await subject_of_each_partition(bus)
    async with bus.running():
        async with bus.running():
            await call_all(bus, subjects, 0)
            assert len(await members(bus)) == 2
        assert len(await members(bus)) == 1
        assert await call_all(bus, subjects, 1) < SESSION_SECONDS / 2


async def test_of_two_processes_with_one_name_the_older_one_stops(
    bus: BusHarness, capfd: pytest.CaptureFixture[str]
) -> None:
    subjects = await subject_of_each_partition(bus)
    async with bus.running(instance="same") as older:
        await call_all(bus, subjects, 0)
        async with bus.running(instance="same") as newer:
            await wait_until(lambda: failing(older), 10)
            assert "NEST_INSTANCE" in older.service.problems()[0]
            handled = newer.ledger.runs.total()
            await call_all(bus, subjects, 1)
            assert newer.ledger.runs.total() == handled + len(subjects)
            await asyncio.sleep(2)
            assert newer.service.problems() == []
            assert len(await members(bus)) == 1
    out = capfd.readouterr().out
    assert (out.count("NEST_INSTANCE"), out.count("offsets not committed")) == (1, 0)


async def failing(running: Any) -> bool:
    return bool(running.service.problems())


async def send_to_coordinator(bus: BusHarness, running: Any, request: Any) -> None:
    """Send a request of the group's protocol over another connection than that of the consumer."""
    client = AIOKafkaClient(bootstrap_servers=bus.bootstrap)
    await client.bootstrap()
    try:
        node = await client.coordinator_lookup(CoordinationType.GROUP, running.consumer._member.group_id)
        assert (await client.send(node, request, group=ConnectionGroup.DEFAULT)).error_code == 0
    finally:
        await client.close()


async def end_session(bus: BusHarness, running: Any) -> None:
    """Remove the member from its group, as Kafka does when a session ends."""
    member = running.consumer._member
    await send_to_coordinator(bus, running, LeaveGroupRequest(member.group_id, member.member_id))


async def test_a_commit_refused_while_the_member_joins_again_does_not_stop_it(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pause of the machine a commit and a heartbeat may both learn that the session has ended."""
    async with bus.running() as running:
        await call_all(bus, ["subject"], 0)
        await wait_until(lambda: settled(running))
        client = running.consumer._member._client
        send, refused, joining = client.send, asyncio.Event(), asyncio.Event()

        async def send_late(node: int, request: Any, **options: Any) -> Any:
            response = asyncio.create_task(send(node, request, **options))
            if isinstance(request, OffsetCommitRequest) and not joining.is_set():
                await response
                refused.set()
                await joining.wait()
            elif isinstance(request, JoinGroupRequest):
                assert refused.is_set()
                await asyncio.sleep(0.3)
                joining.set()
                await asyncio.sleep(0.3)
            return await response

        monkeypatch.setattr(client, "send", send_late)
        await end_session(bus, running)
        await call_all(bus, ["subject"], 1)
        async with asyncio.timeout(10):
            await joining.wait()
        await call_all(bus, ["subject"], 2)
        assert running.service.problems() == []


async def test_a_late_request_to_join_does_not_stop_the_member_that_sent_it(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pause Kafka may handle a request that timed out after the one that the member sent instead."""
    async with bus.running() as running:
        await call_all(bus, ["subject"], 0)
        client = running.consumer._member._client
        send, late = client.send, asyncio.get_running_loop().create_future()

        async def send_but_one(node: int, request: Any, **options: Any) -> Any:
            if isinstance(request, JoinGroupRequest) and not late.done():
                late.set_result(request)
                raise RequestTimedOutError
            return await send(node, request, **options)

        monkeypatch.setattr(client, "send", send_but_one)
        await end_session(bus, running)
        await asyncio.wait_for(late, 10)
        await call_all(bus, ["subject"], 1)
        ids = await members(bus)
        await send_to_coordinator(bus, running, late.result())
        ids += await members(bus)
        assert len({*ids}) == 2, "the late request took the name"
        await wait_until(lambda: other_members(bus, ids), 10)
        await call_all(bus, ["subject"], 2)
        assert running.service.problems() == []


async def other_members(bus: BusHarness, ids: list[str]) -> bool:
    current = await members(bus)
    return bool(current) and not {*current} & {*ids}


async def settled(running: Any) -> bool:
    return bool(running.consumer.settled)


async def test_a_blocked_loop_still_sends_heartbeats(bus: BusHarness) -> None:
    async with bus.running() as running:
        await call_all(bus, ["subject"], 0)
        spare = running.consumer._spare_heartbeats
        assert spare is not None
        assert spare.sent == 0
        time.sleep(2.5)  # noqa: ASYNC251 -- the fault

        async def sent() -> bool:
            return spare.sent >= 1

        await wait_until(sent)


@pytest.mark.slow
async def test_a_blocked_loop_keeps_its_partitions(bus: BusHarness, tmp_path: Path) -> None:
    subjects = await subject_of_each_partition(bus)
    async with worker("ledger", bus.environment(), tmp_path) as ledger, bus.running() as other:
        await ledger.start()
        await wait_until(lambda: has_partitions(other.consumer, 4), 30)
        await call_all(bus, subjects, 0)
        trackers = other.consumer._trackers
        blocked = [
            asyncio.create_task(
                bus.call(Append(subject=subject, number=1, key=subject, block=SESSION_SECONDS + 2), seconds=30)
            )
            for subject in subjects
            if not await handled_by(other, bus, subject)
        ][:1]
        await asyncio.gather(*blocked)
        assert other.consumer._trackers is trackers, "the blocked process lost its partitions"


async def handled_by(running: Any, bus: BusHarness, subject: str) -> bool:
    partition = await bus.partition_of(subject)
    return any(tp.partition == partition for tp in running.consumer.assigned if tp.topic.endswith("ledger.commands"))
