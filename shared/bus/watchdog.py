"""Watchdog of a consumer: ends the process if the consumer has lag and makes no progress.

aiokafka has open bugs after broker restarts (aio-libs/aiokafka#1037, #1154, #703) from which only a new process
recovers. The lag is read through a Kafka client of the watchdog's own, because a stuck consumer does not know it. That
is left out while fresh responses to the consumer prove that there is none.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IllegalStateError, KafkaError

from shared.bus.background_task import BackgroundTask
from shared.bus.consumer import Consumer
from shared.bus.kafka_connection import KafkaConnection
from shared.telemetry import log

CHECK_SECONDS: Final = 15.0
STUCK_SECONDS: Final = 60.0
KAFKA_SECONDS: Final = 10.0
"""Timeout of reading the lag."""
EXIT_CODE: Final = 75
"""EX_TEMPFAIL of sysexits.h: temporary failure, try again."""


def end_process() -> None:
    """End the process at once: a stuck consumer can't be stopped, and unfinished records are delivered again."""
    os._exit(EXIT_CODE)


class Watchdog(BackgroundTask):
    """Watches one consumer and calls ``on_stuck`` once records have waited ``stuck_seconds`` without progress."""

    def __init__(
        self,
        consumer: Consumer,
        kafka: KafkaConnection,
        *,
        on_stuck: Callable[[], None] = end_process,
        stuck_seconds: float = STUCK_SECONDS,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._consumer = consumer
        self._kafka = kafka
        self._on_stuck = on_stuck
        self._stuck_seconds = stuck_seconds
        self._check_seconds = check_seconds
        self._progress: tuple[float, dict[TopicPartition, int]] | None = None
        """Time of the last progress and committed offsets, as of the last check."""
        self._checked_at = 0.0
        self._stalled_seconds = 0.0
        """Seconds between checks for which records have waited without progress."""

    async def is_stuck(self) -> bool:
        """Check once; return True if check after check records wait while none is fetched, finished or committed.

        A consumer with unfinished records is not stuck, because those have timeouts of their own. Nor is it stuck while
        Kafka does not answer; that is an outage. The stalled time starts at the first check that sees waiting records:
        after an hour without messages the first record is not late. It grows by at most two intervals per check, so
        that a process that was frozen has time to continue.
        """
        consumer = self._consumer
        elapsed, self._checked_at = time.monotonic() - self._checked_at, time.monotonic()
        if (
            consumer.fault is not None
            or consumer.in_flight
            or time.monotonic() - consumer.last_progress < self._check_seconds
        ):
            self._stalled_seconds = 0.0
            return False
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                if await consumer.caught_up():
                    self._stalled_seconds = 0.0
                    return False
                committed, lag = await self._committed_and_lag()
        except (KafkaError, IllegalStateError, TimeoutError):
            return False
        before, self._progress = self._progress, (consumer.last_progress, committed)
        if not lag or before != self._progress:
            self._stalled_seconds = 0.0
            return False
        self._stalled_seconds += min(elapsed, 2 * self._check_seconds)
        return self._stalled_seconds >= self._stuck_seconds

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._check_seconds)
            try:
                stuck = await self.is_stuck()
            except Exception:  # noqa: BLE001 -- the watchdog must not end unnoticed
                log.exception("watchdog failed", group=self._consumer.group)
                continue
            if stuck:
                log.critical("consumer stuck", group=self._consumer.group, seconds=self._stuck_seconds)
                self._on_stuck()

    async def _committed_and_lag(self) -> tuple[dict[TopicPartition, int], int]:
        """Return the committed offsets of the assigned partitions, and the number of records after them.

        Partitions of other instances are ignored, unless none is assigned: then the assignment may have been lost. So
        are partitions that are paused, or have records that wait for a newer release.
        """
        assigned, waiting = self._consumer.assigned, self._consumer.pauses.waiting
        client = AIOKafkaConsumer(**self._kafka.options, enable_auto_commit=False)
        admin = AIOKafkaAdminClient(**self._kafka.options)
        try:
            await client.start()
            await admin.start()
            offsets = await admin.list_consumer_group_offsets(self._consumer.group)
            partitions = [
                TopicPartition(topic["topic"], partition["partition"])
                for topic in await admin.describe_topics(list(self._consumer.topics))
                for partition in topic["partitions"]
                if not assigned or (topic["topic"], partition["partition"]) in assigned - waiting
            ]
            ends = await client.end_offsets(partitions)
            starts = await client.beginning_offsets(partitions)
        finally:
            await admin.close()
            await client.stop()
        committed = {partition: offsets[partition].offset for partition in partitions if partition in offsets}
        lag = sum(ends[tp] - max(committed.get(tp, 0), starts[tp]) for tp in partitions)
        return committed, lag
