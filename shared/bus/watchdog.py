"""Does this consumer still move? One that has lag and makes no progress ends its process, which is then started anew.

aiokafka has open bugs after broker restarts (aio-libs/aiokafka#1037, #1154, #703) that no retry within the process
mends. Whether anything moves is asked of Kafka, through a client of its own: the stuck consumer can't know.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from shared.bus.consumer import Consumer
from shared.telemetry import log

LOOK_SECONDS: Final = 15.0
STUCK_SECONDS: Final = 60.0
ASK_SECONDS: Final = 10.0
EXIT_CODE: Final = 75
"""EX_TEMPFAIL of sysexits.h: try again."""


def end_process() -> None:
    """End at once: what hangs can't be asked to stop, and what is under way comes back."""
    os._exit(EXIT_CODE)


class Watchdog:
    """Watches one consumer.

    Args:
        bus: the consumer.
        bootstrap: brokers to ask.
        stuck: what to do when it hangs; ends the process by default.
        stuck_seconds: how long nothing may move while there is something to do.
        look_seconds: how often Kafka is asked.
    """

    def __init__(
        self,
        bus: Consumer,
        bootstrap: str,
        *,
        stuck: Callable[[], None] = end_process,
        stuck_seconds: float = STUCK_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._bus = bus
        self._bootstrap = bootstrap
        self._stuck = stuck
        self._stuck_seconds = stuck_seconds
        self._look_seconds = look_seconds
        self._moved: tuple[float, dict[TopicPartition, int]] | None = None
        """When something was last taken or finished, and what was committed, when Kafka was last asked."""
        self._looked_at = 0.0
        self._standing = 0.0
        """For how many seconds of watching records have waited while nothing moved."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> bool:
        """Whether the consumer is stuck: look after look records wait, and nothing is taken, finished or committed.

        A consumer with messages under way is not stuck: those have time limits of their own. Nor is one whose Kafka
        does not answer: that is an outage. How long it stands still is counted from the first look that sees records
        wait, and between looks that were made: after a quiet hour the first record is merely young, and a process that
        was frozen must first be given time to go on.
        """
        bus = self._bus
        since, self._looked_at = time.monotonic() - self._looked_at, time.monotonic()
        if bus.fault is not None or bus.in_flight or time.monotonic() - bus.last_progress < self._look_seconds:
            self._standing = 0.0
            return False
        try:
            async with asyncio.timeout(ASK_SECONDS):
                committed, waiting = await self._ask()
        except (KafkaError, TimeoutError):
            return False
        before, self._moved = self._moved, (bus.last_progress, committed)
        if not waiting or before != self._moved:
            self._standing = 0.0
            return False
        self._standing += min(since, 2 * self._look_seconds)
        return self._standing >= self._stuck_seconds

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            try:
                stuck = await self.look()
            except Exception:  # noqa: BLE001 -- whoever watches must not end unnoticed
                log.exception("watchdog failed", group=self._bus.group)
                continue
            if stuck:
                log.critical("consumer stuck", group=self._bus.group, seconds=self._stuck_seconds)
                self._stuck()

    async def _ask(self) -> tuple[dict[TopicPartition, int], int]:
        """The committed offsets of what is ours, and how many records wait beyond them.

        Other instances' partitions are no concern of ours, unless we have none: then we may have lost them all.
        """
        ours = self._bus.assigned
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, enable_auto_commit=False)
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        try:
            await consumer.start()
            await admin.start()
            found = await admin.list_consumer_group_offsets(self._bus.group)
            partitions = [
                TopicPartition(topic["topic"], partition["partition"])
                for topic in await admin.describe_topics(list(self._bus.topics))
                for partition in topic["partitions"]
                if not ours or (topic["topic"], partition["partition"]) in ours
            ]
            ends = await consumer.end_offsets(partitions)
            starts = await consumer.beginning_offsets(partitions)
        finally:
            await admin.close()
            await consumer.stop()
        committed = {partition: found[partition].offset for partition in partitions if partition in found}
        waiting = sum(ends[tp] - max(committed.get(tp, 0), starts[tp]) for tp in partitions)
        return committed, waiting
