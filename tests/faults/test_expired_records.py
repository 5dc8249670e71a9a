"""Records that expire while their consumer is away: they are reported, and their messages take effect once."""

from __future__ import annotations

import json
import random

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from structlog.testing import capture_logs

from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import Append
from tests.stack import Login, Stack, eventually

SEPARATE = ("mailer",)

SUBJECTS = [str(number) for number in range(6)]


async def test_expired_records_are_reported_and_their_messages_take_effect_once(
    bus: BusHarness, chaos: random.Random, rounds: int
) -> None:
    expected: dict[str, list[int]] = {subject: [] for subject in SUBJECTS}

    async def append(count: int) -> None:
        for _ in range(count):
            subject = chaos.choice(SUBJECTS)
            number = len(expected[subject])
            await bus.call(Append(subject=subject, number=number, key=subject))
            expected[subject].append(number)

    async def healed() -> bool:
        return all([sorted(await bus.numbers(each, "audit")) == expected[each] for each in SUBJECTS])

    async with bus.running():
        for _ in range(rounds):
            async with bus.running("audit"):
                await append(chaos.randint(1, 10))
                await bus.drained("audit")
            await append(chaos.randint(10, 40))
            handled = sum((await bus.committed("audit")).values())
            await bus.expire_records("ledger.events", keep=chaos.randint(0, 3))
            with capture_logs() as logs:
                async with bus.running("audit"):
                    # New records meanwhile.
                    await append(chaos.randint(0, 10))
                    await wait_until(healed, 30, "the expired messages were not sent again")
                    await bus.drained("audit")
            missed = sum(entry["count"] for entry in logs if entry["event"] == "records expired unread")
            assert missed > 0, "no record expired unread: the fault did not happen"
            assert sum((await bus.committed("audit")).values()) >= handled + missed
    assert await bus.records("ledger.events.dead") == []


async def test_mails_whose_orders_expired_while_the_mailer_was_away_are_sent(nest: Stack) -> None:
    await nest.log_in("before@example.com")
    mailer = nest.processes["mailer"]
    await mailer.stop()
    emails = [f"{number}@example.com" for number in range(30)]
    for email in emails:
        response = await nest.call("send_magic_link", Login(email).request())
        assert response.status_code == 204, response.text
    assert await _expire(nest, "mailer.commands") >= len(emails)
    await mailer.start()
    await eventually(lambda: {arrival.to for arrival in nest.inbox.arrivals()} >= set(emails), what="the mails")
    assert sorted(arrival.to for arrival in nest.inbox.arrivals()) == sorted([*emails, "before@example.com"])
    logged = [json.loads(line) for line in mailer.log.splitlines() if line.startswith("{")]
    reports = [entry for entry in logged if entry["event"] == "records expired unread"]
    assert {entry["level"] for entry in reports} == {"critical"}
    assert sum(entry["count"] for entry in reports) >= len(emails)
    metrics = (await nest.http.get(f"{nest.health['mailer']}/metrics")).text
    assert 'nest_records_expired_total{service="mailer",topic="mailer.commands"}' in metrics


async def _expire(nest: Stack, topic: str) -> int:
    """Delete all records of a topic, as its retention does; return their number."""
    bootstrap, name = nest.environment["NEST_KAFKA_BOOTSTRAP"], nest.environment["NEST_TOPIC_PREFIX"] + topic
    admin, consumer = AIOKafkaAdminClient(bootstrap_servers=bootstrap), AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await admin.start()
    await consumer.start()
    try:
        (found,) = await admin.describe_topics([name])
        partitions = [TopicPartition(name, each["partition"]) for each in found["partitions"]]
        ends = await consumer.end_offsets(partitions)
        await admin.delete_records({partition: RecordsToDelete(end) for partition, end in ends.items()})
        return sum(ends.values())
    finally:
        await consumer.stop()
        await admin.close()
