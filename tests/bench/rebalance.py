"""Benchmark: what a rolling restart of many instances of one service costs, in pauses of each partition.

Members of one consumer group, with Nest's settings of it, read a topic to whose every partition a record is sent at a
fixed rate. They are replaced one after another: under their names, as a StatefulSet or `NEST_INSTANCE` gives, or by
new ones that start first, as a Deployment does.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from rich.console import Console
from rich.table import Table

from services.embedded.console import Console as Progress
from services.embedded.kafka import EmbeddedKafka
from shared.bus import topics
from shared.bus.group_member import HEARTBEAT_SECONDS, SESSION_SECONDS, use_group_members
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import COMMAND_PARTITIONS, DAY, Topic

TOPIC: Final = Topic("bench.commands", COMMAND_PARTITIONS, DAY)
SEND_SECONDS: Final = 0.1
"""Interval of the records of each partition."""
SETTLE_SECONDS: Final = 3.0


@dataclass
class Pauses:
    """Longest time between two records of each partition, and the number of rebalances."""

    last: dict[TopicPartition, float] = field(default_factory=dict)
    longest: dict[TopicPartition, float] = field(default_factory=lambda: defaultdict(float))
    total: dict[TopicPartition, float] = field(default_factory=lambda: defaultdict(float))
    rebalances: int = 0

    def reset(self) -> None:
        """Forget what was measured."""
        self.longest.clear()
        self.total.clear()
        self.rebalances = 0

    def read(self, partition: TopicPartition) -> None:
        """Record that a record of this partition was read now."""
        now = time.monotonic()
        pause = now - self.last.get(partition, now)
        self.last[partition] = now
        self.longest[partition] = max(self.longest[partition], pause)
        if pause > 3 * SEND_SECONDS:
            self.total[partition] += pause


class Member(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of the group that reads and commits."""

    def __init__(self, bootstrap: str, instance: str, pauses: Pauses) -> None:
        self._pauses = pauses
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id="bench",
            group_instance_id=instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
            session_timeout_ms=int(SESSION_SECONDS * 1000),
            heartbeat_interval_ms=int(HEARTBEAT_SECONDS * 1000),
            rebalance_timeout_ms=30_000,
        )
        self._consumer.subscribe([TOPIC.name], listener=self)

    async def start(self) -> None:
        """Join the group."""
        await self._consumer.start()
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        """Commit and leave the group."""
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        await self._consumer.commit()
        await self._consumer.stop()

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Commit, as Nest's consumer does."""
        self._pauses.rebalances += bool(revoked)
        if revoked:
            await self._consumer.commit()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Do nothing: the records show it."""

    async def _read(self) -> None:
        while True:
            for partition in await self._consumer.getmany(timeout_ms=1000):
                self._pauses.read(partition)


@asynccontextmanager
async def sending(bootstrap: str) -> AsyncIterator[None]:
    """Send to every partition."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()

    async def send() -> None:
        while True:
            for number in range(COMMAND_PARTITIONS):
                await producer.send(TOPIC.name, b"x", partition=number)
            await asyncio.sleep(SEND_SECONDS)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await producer.stop()


async def measure(bootstrap: str, members: int) -> list[tuple[str, float, Pauses]]:
    """Replace all members in both ways; return the way, its duration and the pauses."""
    await topics.apply(KafkaConnection(bootstrap), topics=[TOPIC])
    use_group_members()
    pauses, outcomes = Pauses(), []
    numbers = itertools.count(members)
    async with sending(bootstrap):
        group = {f"member-{number}": Member(bootstrap, f"member-{number}", pauses) for number in range(members)}
        for each in group.values():
            await each.start()
        for way in ("under their names", "by new ones"):
            await asyncio.sleep(SETTLE_SECONDS)
            pauses.reset()
            began = time.monotonic()
            for name in list(group):
                if way == "under their names":
                    await group[name].stop()
                    group[name] = Member(bootstrap, name, pauses)
                    await group[name].start()
                else:
                    newer = f"member-{next(numbers)}"
                    group[newer] = Member(bootstrap, newer, pauses)
                    await group[newer].start()
                    await group.pop(name).stop()
                await asyncio.sleep(1)
            await asyncio.sleep(SETTLE_SECONDS)
            outcomes.append(
                (way, time.monotonic() - began, Pauses({}, dict(pauses.longest), dict(pauses.total), pauses.rebalances))
            )
        await asyncio.gather(*(each.stop() for each in group.values()))
    return outcomes


async def main(members: int, bootstrap: str | None) -> None:
    """Measure and print, on this Kafka or an embedded one."""
    with tempfile.TemporaryDirectory() as folder:
        kafka = None if bootstrap else EmbeddedKafka(Path(folder), progress=Progress())
        if kafka is not None:
            await kafka.start()
        try:
            outcomes = await measure(bootstrap or kafka.bootstrap, members)  # type: ignore[union-attr]
        finally:
            if kafka is not None:
                await kafka.stop()
    table = Table(
        "replaced", "seconds", "revocations", "longest pause", "median of the longest", "pauses of a partition in all"
    )
    for way, seconds, pauses in outcomes:
        longest, total = sorted(pauses.longest.values()), sorted(pauses.total.values())
        table.add_row(
            way,
            f"{seconds:.0f}",
            str(pauses.rebalances),
            f"{longest[-1]:.2f} s",
            f"{longest[len(longest) // 2]:.2f} s",
            f"{total[len(total) // 2] if total else 0:.1f} s",
        )
    Console(width=160).print(f"{members} members, {COMMAND_PARTITIONS} partitions", table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--bootstrap", help="Kafka without other load; an embedded one by default")
    options = parser.parse_args()
    # Every rebalance is one to aiokafka's log.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    asyncio.run(main(options.members, options.bootstrap))
