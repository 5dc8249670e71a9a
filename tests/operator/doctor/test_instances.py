"""Clocks of running processes and paused partitions, from their announcements on a real Kafka."""

import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.instances import check_clocks, check_paused_partitions
from shared.bus import topics
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.outside_work import publish_outside_work
from shared.bus.paused_partitions import PauseAnnouncements
from shared.bus.producer import Producer
from shared.bus.record_macs import RecordMacs
from shared.clock_check import ClockCheck
from shared.messages.auth.partitions import PAUSED_PARTITIONS
from shared.sealing import Sealer
from tests.stack import eventually

SEALER = Sealer({"k1": bytes(32)})


@pytest.fixture
async def producer(kafka_bootstrap: str, unique: Callable[[], str]) -> AsyncIterator[Producer]:
    prefix = unique()
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=prefix, topics=[topics.INSTANCES])
    producer = Producer(KafkaConnection(kafka_bootstrap), macs=RecordMacs(SEALER, prefix=prefix), prefix=prefix)
    await producer.start()
    yield producer
    await producer.stop()


async def announce(producer: Producer, *, ahead: float, service: str, instance: str = "host-1") -> None:
    """Announce a process whose clock is ahead by so many seconds."""
    check = ClockCheck(service=service, instance=instance, producer=producer, clock=lambda: time.time() + ahead)
    await check.measure()
    await check.measure()


async def findings(producer: Producer) -> list[Finding]:
    return [finding async for finding in check_clocks(producer._kafka, producer._prefix, producer._macs)]


async def test_processes_with_right_clocks_are_ok(producer: Producer) -> None:
    for service in ("auth", "gateway"):
        await announce(producer, ahead=0.0, service=service)
    (finding,) = await findings(producer)
    assert (finding.level, finding.says) == (Level.OK, "those of 2 processes agree with MongoDB's and Kafka's")


@pytest.mark.parametrize(
    ("ahead", "level", "says"),
    [
        (4.0, Level.WARNING, "the clock of auth host-2 is 4 s ahead of Kafka's"),
        (-4.0, Level.WARNING, "the clock of auth host-2 is 4 s behind Kafka's"),
        (90.0, Level.PROBLEM, "the clock of auth host-2 is 90 s ahead of Kafka's, so it takes no messages"),
        (-600.0, Level.PROBLEM, "the clock of auth host-2 is 600 s behind Kafka's, so it takes no messages"),
    ],
)
async def test_one_wrong_clock_of_many_is_found(producer: Producer, *, ahead: float, level: Level, says: str) -> None:
    await announce(producer, ahead=ahead, service="auth", instance="host-2")
    await announce(producer, ahead=0.0, service="auth", instance="host-1")
    (finding,) = await findings(producer)
    assert (finding.level, finding.says) == (level, says)


async def test_without_announcements_it_warns(producer: Producer) -> None:
    (finding,) = await findings(producer)
    assert finding.level is Level.WARNING


async def test_paused_partitions_are_named_with_their_reasons(producer: Producer) -> None:
    table = [topic for topic in topics.TOPICS if topic.name == PAUSED_PARTITIONS]
    await topics.apply(producer._kafka, prefix=producer._prefix, topics=table)

    async def found() -> list[tuple[Level, str, str]]:
        checked = check_paused_partitions(producer._kafka, producer._prefix, producer._macs)
        return [(each.level, each.says, each.do) async for each in checked]

    assert await found() == [(Level.OK, "no partition is paused", "")]
    announcements = PauseAnnouncements("auth-1", partial(publish_outside_work, producer, SEALER))
    for number in (2, 3):
        announcements.pause(f"auth/auth.commands/{number}", reason="10 dead letters in a row", offset=17)
    announcements.resume("auth/auth.commands/2")
    await eventually(lambda: not announcements._sending)
    ((level, says, remedy),) = await found()
    assert level is Level.PROBLEM
    assert says.startswith("auth/auth.commands/3 is paused since ")
    assert says.endswith(" UTC by auth-1: 10 dead letters in a row; its records from offset 17 on wait")
    assert "nest partitions resume auth/auth.commands/3" in remedy
    without_keys = [each async for each in check_paused_partitions(producer._kafka, producer._prefix, None)]
    assert [each.level for each in without_keys] == [Level.SKIPPED]
