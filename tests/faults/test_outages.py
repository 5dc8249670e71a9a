"""Outages of Kafka and MongoDB: callers are notified in time, and accepted commands take effect once."""

import asyncio
import os
import random
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from pymongo.errors import AutoReconnect

from services.embedded.mongo import EmbeddedMongo
from shared.bus.envelope import unix_milliseconds
from shared.bus.producer import BusDown
from shared.ids import new_message_id
from shared.mongo import connect
from tests.faults.conftest import OwnKafka, OwnMongo
from tests.faults.worker_process import worker
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import Append, Total

BusOn = Callable[[EmbeddedMongo], Awaitable[BusHarness]]


@pytest.fixture
async def bus_on(kafka_bootstrap: str, topic_prefix: str) -> AsyncIterator[BusOn]:
    """Function that opens the topics of this test, and databases on a MongoDB of its own."""
    async with AsyncExitStack() as stack:
        yield lambda mongo: stack.enter_async_context(BusHarness(kafka_bootstrap, mongo.url, topic_prefix, "nest_"))


async def test_a_kafka_outage_loses_and_repeats_nothing(
    own_kafka: OwnKafka, mongo_url: str, database_prefix: str
) -> None:
    kafka = await own_kafka()
    accepted: list[int] = []
    refused = 0
    async with (
        BusHarness(kafka.bootstrap, mongo_url, "p.", database_prefix) as bus,
        bus.running() as ledger,
        bus.running("audit") as audit,
    ):
        bus.producer._timeout = 2.0  # as that of a gateway

        async def send(number: int) -> None:
            nonlocal refused
            try:
                await bus.send(Append(subject=str(number), number=number, key=str(number)))
                accepted.append(number)
            except BusDown:
                refused += 1

        pid = kafka.pid
        tasks = [asyncio.create_task(send(number)) for number in range(200)]
        await asyncio.sleep(0.05)
        await kafka.kill()
        for number in range(200, 203):
            started_at = time.monotonic()
            await send(number)
            assert time.monotonic() - started_at < 10, "a command waits too long without Kafka"
        await asyncio.gather(*tasks)
        assert refused >= 3, "the fault did not happen"
        await kafka.start()
        assert kafka.pid != pid
        restarted = time.monotonic()

        async def handled() -> bool:
            try:
                return (
                    await bus.call(Append(subject="after", number=0, unique=new_message_id()), seconds=2)
                ).kind == "done"
            except (BusDown, TimeoutError):
                return False

        await wait_until(handled, 40, "no command is handled after the outage")
        assert time.monotonic() - restarted < 30
        await bus.drained("ledger", "audit")
        assert ledger.stuck + audit.stuck == []
        assert ledger.service.problems() + audit.service.problems() == []
        for number in accepted:
            assert await bus.numbers(str(number)) == [number], "accepted without taking effect once"
        for number in range(203):
            assert await bus.numbers(str(number)) in ([], [number]), "took effect twice"
            assert await bus.numbers(str(number), "audit") == await bus.numbers(str(number))


@pytest.mark.slow
async def test_a_stop_during_a_kafka_outage_ends(own_kafka: OwnKafka, mongo_url: str, database_prefix: str) -> None:
    kafka = await own_kafka()
    async with BusHarness(kafka.bootstrap, mongo_url, "p.", database_prefix) as bus:
        async with bus.running(drain_seconds=2):
            await bus.call(Append(subject="s", number=0))
            await kafka.kill()
            await asyncio.sleep(0.5)
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 20
        await kafka.start()
        async with bus.running():
            await bus.drained()
        assert await bus.numbers("s") == [0]


async def test_commands_during_a_mongodb_outage_are_refused_and_handled_later(
    own_mongo: OwnMongo, kafka_bootstrap: str, topic_prefix: str
) -> None:
    mongo = await own_mongo()
    async with BusHarness(kafka_bootstrap, mongo.url, topic_prefix, "nest_") as bus, bus.running() as ledger:
        await bus.call(Append(subject="before", number=0, key="k"))
        await mongo.kill()
        started_at = time.monotonic()
        message_ids = {str(number): new_message_id() for number in range(5)}
        replies = await asyncio.gather(
            *(
                bus.call(Append(subject=subject, number=1, key=subject), id=message_id, seconds=10)
                for subject, message_id in message_ids.items()
            ),
            bus.call(Total(subject="before"), seconds=10),
        )
        assert {reply.kind for reply in replies} == {"unavailable"}
        assert time.monotonic() - started_at < 10
        await mongo.start()
        await bus.drained()
        repeats = [
            await bus.call(Append(subject=subject, number=1, key=subject), id=message_id)
            for subject, message_id in message_ids.items()
        ]
        assert {(reply.kind, reply.replayed) for reply in repeats} == {("done", True)}
        for subject in message_ids:
            assert await bus.numbers(subject) == [1]
        assert await bus.numbers("before") == [0]
        assert await bus.records("ledger.commands.dead") == []
        assert ledger.stuck == []


@pytest.mark.parametrize("fault", ["killed", pytest.param("frozen", marks=pytest.mark.slow)])
async def test_every_caller_is_notified_of_a_mongodb_outage_at_once(
    own_mongo: OwnMongo, kafka_bootstrap: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("shared.bus.outage.PATIENCE_SECONDS", 1.0)
    mongo = await own_mongo()
    async with (
        BusHarness(kafka_bootstrap, mongo.url, topic_prefix, "nest_") as bus,
        bus.running(in_flight=8),
        bus.running("audit"),
    ):
        await bus.call(Append(subject="before", number=0, key="before"))
        await (mongo.kill() if fault == "killed" else freeze(mongo))
        # Some wait behind others of their key, and most are beyond the eight that may be in flight.
        commands = {
            new_message_id(): Append(subject=subject, number=number, key=subject)
            for number in range(4)
            for subject in ("a", "b", "c", *(f"{each}" for each in range(10)))
        }
        began = time.monotonic()
        replies = await asyncio.gather(
            *(bus.call(each, id=message_id, seconds=20) for message_id, each in commands.items())
        )
        assert [(reply.kind, reply.body["meta"]) for reply in replies] == [("unavailable", {"retry_after": 5})] * 52
        assert time.monotonic() - began < 15, "callers waited for their deadline"
        began = time.monotonic()
        late = {new_message_id(): Append(subject=f"late {number}", number=0) for number in range(10)}
        replies = await asyncio.gather(
            *(bus.call(each, id=message_id, seconds=20) for message_id, each in late.items()),
            bus.call(Total(subject="a"), seconds=20),
        )
        assert {reply.kind for reply in replies} == {"unavailable"}
        assert time.monotonic() - began < 10, "the outage was known, and yet callers waited"
        await (mongo.start() if fault == "killed" else thaw(mongo))
        await bus.drained("ledger", "audit")
        repeats = [await bus.call(each, id=message_id) for message_id, each in (commands | late).items()]
        assert {(reply.kind, reply.replayed) for reply in repeats} == {("done", True)}
        for subject in {each.subject for each in (commands | late).values()}:
            expected = [each.number for each in (commands | late).values() if each.subject == subject]
            assert await bus.listed(subject) == expected
            assert sorted(await bus.numbers(subject, "audit")) == expected
        assert await bus.records("ledger.commands.dead") == []


async def test_mongodb_killed_during_commits_loses_and_repeats_nothing(
    own_mongo: OwnMongo, kafka_bootstrap: str, topic_prefix: str
) -> None:
    mongo = await own_mongo()
    async with (
        BusHarness(kafka_bootstrap, mongo.url, topic_prefix, "nest_") as bus,
        bus.running() as ledger,
        bus.running("audit"),
    ):
        subjects = [str(number) for number in range(20)]
        commands = [(subject, number) for number in range(10) for subject in subjects]
        for subject, number in commands[:100]:
            await bus.send(Append(subject=subject, number=number, key=subject, events=2))
        await wait_until(lambda: positive(ledger.ledger.runs.total()))
        await mongo.kill()
        for subject, number in commands[100:]:
            await bus.send(Append(subject=subject, number=number, key=subject, events=2))
        await mongo.start()
        await bus.drained("ledger", "audit")
        for subject in subjects:
            assert await bus.listed(subject) == list(range(10))
            assert sorted(await bus.numbers(subject, "audit")) == sorted([*range(10)] * 2)
        assert len(await bus.rows()) == len(commands)
        assert await bus.records("ledger.commands.dead") == []
        assert ledger.service.problems() == []


async def test_a_primary_that_steps_down_loses_and_repeats_nothing(
    own_mongo: OwnMongo, kafka_bootstrap: str, topic_prefix: str
) -> None:
    mongo = await own_mongo()
    async with BusHarness(kafka_bootstrap, mongo.url, topic_prefix, "nest_") as bus, bus.running() as ledger:
        tasks = [
            asyncio.create_task(bus.call(Append(subject=str(number), number=number, key=str(number)), seconds=60))
            for number in range(100)
        ]
        await wait_until(lambda: positive(ledger.ledger.runs.total()))
        with suppress(AutoReconnect):
            await bus.client.admin.command({"replSetStepDown": 3, "force": True})
        stepped_down = time.monotonic()
        tasks += [
            asyncio.create_task(bus.call(Append(subject=str(number), number=number, key=str(number)), seconds=60))
            for number in range(100, 120)
        ]
        replies = await asyncio.gather(*tasks)
        assert time.monotonic() - stepped_down > 2, "the primary did not step down"
        assert {reply.kind for reply in replies} == {"done"}
        for number in range(120):
            assert await bus.numbers(str(number)) == [number]
        assert await bus.records("ledger.commands.dead") == []


@dataclass
class Calls:
    """Calls of many clients with random commands and queries."""

    bus: BusHarness
    chaos: random.Random
    commands: dict[str, Append] = field(default_factory=dict)
    """Commands by message ID, those of a subject in the order in which they were sent."""
    running: list[asyncio.Task[str]] = field(default_factory=list)

    def start(self, count: int) -> None:
        """Start so many calls at once."""
        self.running += [asyncio.create_task(self._call()) for _ in range(count)]

    async def _call(self) -> str:
        """Append the next number to a random subject, or count its entries; return the kind of the reply."""
        subject = str(self.chaos.randrange(12))
        if self.chaos.random() < 0.2:
            return (await self.bus.call(Total(subject=subject), seconds=9)).kind
        command, message_id = Append(subject=subject, number=len(self.commands), key=subject), new_message_id()
        self.commands[message_id] = command
        return (await self.bus.call(command, id=message_id, seconds=9)).kind

    async def replies(self) -> set[str]:
        """Wait for all replies and return their kinds; raise TimeoutError if a call has no reply at its deadline."""
        running, self.running = self.running, []
        return {*await asyncio.gather(*running)}


@pytest.mark.slow
async def test_random_outages_of_mongodb_notify_every_caller_and_lose_nothing(
    own_mongo: OwnMongo, bus_on: BusOn, monkeypatch: pytest.MonkeyPatch, chaos: random.Random, rounds: int
) -> None:
    monkeypatch.setattr("shared.bus.outage.PATIENCE_SECONDS", 2.0)
    mongo = await own_mongo()
    bus = await bus_on(mongo)
    calls = Calls(bus, chaos)
    async with bus.running(in_flight=16):
        for _ in range(rounds):
            async with AsyncExitStack() as second:
                if chaos.random() < 0.5:
                    await second.enter_async_context(bus.running(in_flight=16, drain_seconds=1))
                calls.start(chaos.randint(1, 20))
                await asyncio.sleep(chaos.uniform(0, 0.1))
                # A frozen MongoDB is noticed after the timeouts of an operation and a ping, 3.5 s.
                kill, seconds = chaos.random() < 0.5, chaos.uniform(6, 9)
                await (mongo.kill() if kill else freeze(mongo))
                ends = time.monotonic() + seconds
                calls.start(chaos.randint(40, 100))
                while time.monotonic() < ends:
                    await asyncio.sleep(seconds / 10)
                    calls.start(chaos.randint(0, 3))
                    if chaos.random() < 0.1:
                        await second.aclose()  # its partitions move during the outage
                await (mongo.start() if kill else thaw(mongo))
                replies = await calls.replies()
                assert "unavailable" in replies, "the fault did not happen"
                assert replies <= {"done", "unavailable"}
                await bus.drained()
        for message_id, command in calls.commands.items():
            repeat = await bus.call(command, id=message_id)
            assert (repeat.kind, repeat.replayed) == ("done", True)
        for subject in {command.subject for command in calls.commands.values()}:
            expected = [command.number for command in calls.commands.values() if command.subject == subject]
            assert await bus.listed(subject) == expected
            # After a kill MongoDB applies its log in parallel, so entries are no longer in the order of their commits.
            assert sorted(await bus.numbers(subject)) == expected
        assert await bus.records("ledger.commands.dead") == []


SLOW = {
    "stopped at its time limit": {"errorCode": 50},
    "not answered in time": {"blockConnection": True, "blockTimeMS": 1_500},
}
"""Options of a fail point: ways in which an operation of a MongoDB that answers pings takes too long."""


@pytest.mark.parametrize("how", SLOW)
async def test_a_slow_query_is_refused_after_one_attempt_and_is_no_outage(
    own_mongo: OwnMongo, kafka_bootstrap: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("shared.service.connect", partial(connect, timeout=1.0))
    mongo = await own_mongo()
    async with BusHarness(kafka_bootstrap, mongo.url, topic_prefix, "nest_") as bus, bus.running() as ledger:
        await bus.call(Append(subject="s", number=0))
        await fail(bus, "aggregate", times=10, **SLOW[how])
        query = new_message_id()
        slow, other = await asyncio.gather(
            bus.call(Total(subject="s"), id=query, seconds=9), bus.call(Append(subject="t", number=1), seconds=9)
        )
        assert (slow.kind, slow.body) == ("timed_out", {"code": "query_timeout"})
        assert other.kind == "done"
        assert ledger.ledger.runs[query] == 1
        await fail(bus, "aggregate", times=0)
        assert (await bus.call(Total(subject="s"))).body == {"entries": 1}


async def test_timeouts_of_a_command_consume_no_attempts(
    own_mongo: OwnMongo, kafka_bootstrap: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.delivery.OUTAGE_PAUSE", 0.05)
    mongo = await own_mongo()
    async with BusHarness(kafka_bootstrap, mongo.url, topic_prefix, "nest_") as bus, bus.running() as ledger:
        await bus.call(Append(subject="before", number=0))
        await fail(bus, "find", times=6, errorCode=50, namespace="nest_ledger.subjects")
        message_id = new_message_id()
        reply = await bus.call(Append(subject="s", number=1), id=message_id, seconds=1.5)
        assert (reply.kind, reply.body["meta"]) == ("unavailable", {"retry_after": 5})
        repeat = await bus.call(Append(subject="s", number=1), id=message_id)
        assert repeat.kind == "done"
        assert ledger.ledger.runs[message_id] == 7
        assert await bus.numbers("s") == [1]
        await bus.drained()
        assert await bus.records("ledger.commands.dead") == []


REFUSALS = {
    "revoked right": ({"errorCode": 13}, "MongoDB does not permit its user to read and write its database"),
    "changed password": ({"errorCode": 18}, "MongoDB refuses its user name, password or certificate"),
}
"""Options of a fail point, and what the health check says: refusals that last until an operator acts."""


@pytest.mark.parametrize("how", ["revoked right", pytest.param("changed password", marks=pytest.mark.slow)])
async def test_a_refusal_by_mongodb_is_an_outage_and_no_fault_of_the_message(
    own_mongo: OwnMongo, kafka_bootstrap: str, topic_prefix: str, how: str
) -> None:
    mongo = await own_mongo()
    options, problem = REFUSALS[how]
    async with BusHarness(kafka_bootstrap, mongo.url, topic_prefix, "nest_") as bus, bus.running() as ledger:
        await bus.call(Append(subject="s", number=1))
        await fail(bus, "insert", "update", application=None, **options)
        message_id = new_message_id()
        reply = await bus.call(Append(subject="s", number=2), id=message_id, seconds=3)
        assert (reply.kind, reply.body["meta"]) == ("unavailable", {"retry_after": 5})

        async def unhealthy() -> bool:
            return any(each.startswith(problem) for each in ledger.service.problems())

        await wait_until(unhealthy)
        await fail(bus, "update", times=0)

        async def healthy() -> bool:
            return not ledger.service.problems()

        await wait_until(healthy)
        assert (await bus.call(Append(subject="s", number=2), id=message_id)).kind == "done"
        assert await bus.numbers("s") == [1, 2]
        await bus.drained()
        assert await bus.records("ledger.commands.dead") == []


async def fail(
    bus: BusHarness,
    *commands: str,
    times: int | None = None,
    application: str | None = "nest-ledger",
    **options: object,
) -> None:
    """Let MongoDB commands of the ledger, or of everybody, fail so many times; until the next call if None."""
    data = {"failCommands": commands, **({"appName": application} if application else {}), **options}
    mode = "alwaysOn" if times is None else {"times": times} if times else "off"
    await bus.client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})


async def freeze(mongo: EmbeddedMongo) -> None:
    os.kill(mongo.pid, signal.SIGSTOP)


async def thaw(mongo: EmbeddedMongo) -> None:
    os.kill(mongo.pid, signal.SIGCONT)


async def positive(count: int) -> bool:
    return count > 0


@pytest.mark.slow
async def test_a_start_waits_for_kafka_and_mongodb(own_kafka: OwnKafka, own_mongo: OwnMongo) -> None:
    kafka, mongo = await asyncio.gather(own_kafka(), own_mongo())
    async with BusHarness(kafka.bootstrap, mongo.url, "p.", "nest_") as bus:
        waiting = await bus.send(Append(subject="s", number=0))
        await asyncio.gather(kafka.kill(), mongo.kill())
        starting = asyncio.create_task(runs_after_start(bus))
        done, _ = await asyncio.wait({starting}, timeout=2.5)
        assert not done, "the start did not wait"
        await mongo.start()
        done, _ = await asyncio.wait({starting}, timeout=2.5)
        assert not done, "the start did not wait for Kafka"
        await kafka.start()
        runs = await starting
        assert runs[waiting.id] == 1


async def runs_after_start(bus: BusHarness) -> dict[str, int]:
    async with bus.running() as running:
        await bus.drained()
        return running.ledger.runs


async def test_a_query_during_a_mongodb_outage_is_refused_before_its_deadline(
    own_mongo: OwnMongo, kafka_bootstrap: str, topic_prefix: str
) -> None:
    mongo = await own_mongo()
    async with BusHarness(kafka_bootstrap, mongo.url, topic_prefix, "nest_") as bus, bus.running():
        await bus.call(Total(subject="s"))
        await mongo.kill()
        for _ in range(2):
            deadline = unix_milliseconds() + 4000
            reply = await bus.call(Total(subject="s"), seconds=4)
            assert reply.kind == "unavailable"
            assert unix_milliseconds() < deadline
        await mongo.start()

        async def available() -> bool:
            return (await bus.call(Total(subject="s"))).kind == "done"

        await wait_until(available, 20)


@pytest.mark.slow
async def test_five_kafka_outages_lose_and_repeat_nothing(
    own_kafka: OwnKafka, mongo_url: str, database_prefix: str
) -> None:
    kafka = await own_kafka()
    async with (
        BusHarness(kafka.bootstrap, mongo_url, "p.", database_prefix) as bus,
        bus.running(),
        bus.running("audit"),
    ):
        for turn in range(5):
            for number in range(20):
                await bus.send(Append(subject=f"{turn}", number=number, key=f"{turn}"))
            await kafka.kill()
            await asyncio.sleep(turn)
            await kafka.start()
            await bus.drained("ledger", "audit")
            assert await bus.listed(f"{turn}") == list(range(20))
            assert sorted(await bus.numbers(f"{turn}", "audit")) == list(range(20))


@pytest.mark.slow
async def test_a_process_neither_floods_its_log_nor_kafka_during_an_outage(
    own_kafka: OwnKafka, mongo_url: str, database_prefix: str, tmp_path: Path
) -> None:
    kafka = await own_kafka()
    async with (
        BusHarness(kafka.bootstrap, mongo_url, "p.", database_prefix) as bus,
        worker("ledger", bus.environment(), tmp_path) as ledger,
    ):
        await ledger.start()
        await bus.call(Append(subject="s", number=0, key="s"), seconds=30)

        async def logged() -> bool:
            return f'"type":"{Append.wire}"' in ledger.log

        # The line of the call comes after its reply.
        await wait_until(logged, 20)
        before = len(ledger.log.splitlines())
        await kafka.kill()
        with refusing(kafka.bootstrap) as connections:
            await asyncio.sleep(8)
            assert len(ledger.log.splitlines()) - before <= 1, ledger.log
            # The harness and the clients of the process: without the back-off each connects ten times a second.
            assert connections.count < 8 * 20, connections.count
            assert connections.count > 0, "nothing was measured"
        await kafka.start()

        async def handled() -> bool:
            try:
                reply = await bus.call(Append(subject="s", number=1, unique=new_message_id()), seconds=2)
            except (BusDown, TimeoutError):
                return False
            return reply.kind == "done"

        await wait_until(handled, 40, "no command is handled after the outage")


@dataclass
class Connections:
    """Counter of connections."""

    count: int = 0


@contextmanager
def refusing(address: str) -> Iterator[Connections]:
    """Accept and close the connections to an address during the block, and count them."""
    counted = Connections()
    host, _, port = address.partition(":")
    listener = socket.create_server((host, int(port)))
    listener.settimeout(0.1)
    stopping = threading.Event()

    def accept() -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                listener.accept()[0].close()
                counted.count += 1

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield counted
    finally:
        stopping.set()
        thread.join()
        listener.close()
