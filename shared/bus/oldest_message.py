"""Age of the oldest unfinished message on the partitions of a consumer, for the metric.

The consumer knows the messages that it has fetched. Those that still wait on Kafka, because their partition is paused
or the consumer is stuck, are looked up regularly.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from shared.bus.background_task import BackgroundTask
from shared.bus.consumer import Consumer
from shared.metrics import OLDEST
from shared.telemetry import log

CHECK_SECONDS: Final = 5.0
KAFKA_SECONDS: Final = 5.0
"""Timeout of one look-up."""


class OldestMessage(BackgroundTask):
    """Measures the age of the oldest unfinished message, and exports it.

    Args:
        consumer: the consumer.
        service: service name, for metrics.
        seconds: interval of the look-ups on Kafka.
    """

    def __init__(self, consumer: Consumer, *, service: str, seconds: float = CHECK_SECONDS) -> None:
        self._consumer = consumer
        self._seconds = seconds
        self._waiting: dict[TopicPartition, tuple[int | None, int]] = {}
        """Timestamp of the oldest record on Kafka that is not fetched, Unix milliseconds, after the offset of the last
        fetched one."""
        OLDEST.labels(service).set_function(self.age)

    def age(self) -> float:
        """Return the age in seconds; 0 if no message waits."""
        oldest = []
        for partition, tracker in self._consumer.trackers.items():
            last, timestamp = self._waiting.get(partition, (None, None))
            if tracker.oldest is not None:
                oldest.append(tracker.oldest)
            elif timestamp is not None and last == tracker.last:
                oldest.append(timestamp)
        return max(0.0, time.time() - min(oldest) / 1000) if oldest else 0.0

    async def look_up(self) -> None:
        """Find the oldest record of each partition of which records wait on Kafka alone.

        Raises:
            KafkaError, IllegalStateError, TimeoutError: Kafka did not answer, or the partitions are being reassigned.
        """
        trackers = {each: tracker for each, tracker in self._consumer.trackers.items() if tracker.oldest is None}
        last = {each: tracker.last for each, tracker in trackers.items()}
        async with asyncio.timeout(KAFKA_SECONDS):
            after = {
                # Of a partition that was read by a release that did not commit times, the time is unknown.
                each: trackers[each].last_read + 1
                for each, position in (await self._consumer.positions_behind(list(trackers))).items()
                if trackers[each].last_read or not position
            }
            found = await self._consumer.first_after(after) if after else {}
        # Records of the same millisecond as the last one that was read are not found after it.
        times = {each: found.get(each, start - 1) for each, start in after.items()}
        self._waiting = {each: (last[each], timestamp) for each, timestamp in times.items() if timestamp}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.look_up()
            except (KafkaError, IllegalStateError, TimeoutError) as failure:
                log.debug("oldest message not measured", error=type(failure).__name__)
            except Exception:  # noqa: BLE001 -- the measurement must not end unnoticed
                log.exception("oldest message not measured")
