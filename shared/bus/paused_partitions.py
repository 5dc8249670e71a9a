"""Paused partitions of all services, as the topic ``paused-partitions`` states them.

A pause belongs to the partition, not to the process: the instance that gets the partition in a rebalance keeps it
paused. It holds for the release that made it, because another release may not have the fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from pydantic import ValidationError

from shared.bus.producer import BusDown
from shared.messages import Message
from shared.messages.auth.partitions import PartitionPaused, PartitionResumed, PausedPartitionView
from shared.telemetry import log

RELEASE: Final = version("nest")
RETRY_SECONDS: Final = 1.0
"""Pause between two attempts to announce a pause while Kafka is away."""


class PausedPartitions:
    """The paused partitions, from the records of the topic in order.

    Attributes:
        on_paused: called with each pause of the topic.
        on_resumed: called with each order to resume a partition.
    """

    def __init__(self) -> None:
        self._paused: dict[str, PausedPartitionView] = {}
        self.on_paused: Callable[[PausedPartitionView], None] = lambda _: None
        self.on_resumed: Callable[[PartitionResumed], None] = lambda _: None

    def apply(self, record: Any) -> None:
        """Take a record of the topic; records of other types are ignored."""
        wire = next((value.decode() for name, value in record.headers if name == "type"), "")
        try:
            if wire == PartitionPaused.wire:
                pause = PartitionPaused.model_validate_json(record.value or b"").pause
                self._paused[pause.id] = pause
                self.on_paused(pause)
            elif wire == PartitionResumed.wire:
                resumed = PartitionResumed.model_validate_json(record.value or b"")
                self._paused.pop(resumed.id, None)
                self.on_resumed(resumed)
        except ValidationError:
            log.warning("paused partition not understood", offset=record.offset)

    def find(self, partition: str) -> PausedPartitionView | None:
        """Return the pause of the partition with this ID; None if it is not paused."""
        return self._paused.get(partition)

    def all(self) -> list[PausedPartitionView]:
        """Return all pauses, by ID."""
        return sorted(self._paused.values(), key=lambda each: each.id)


class PauseAnnouncements(PausedPartitions):
    """The paused partitions, and the announcement of those of this process.

    Args:
        instance: instance name.
        publish: sends a message; raises BusDown.

    Attributes:
        release: release of this process.
    """

    def __init__(self, instance: str, publish: Callable[[Message], Awaitable[None]]) -> None:
        super().__init__()
        self._instance = instance
        self._publish = publish
        self._sending: set[asyncio.Task[None]] = set()
        self.release = RELEASE

    def pause(self, partition: str, *, reason: str, offset: int | None) -> None:
        """Announce that a partition is paused; its first waiting record has this offset.

        Returns at once, and repeats the announcement in the background while Kafka is away.
        """
        now = datetime.now(UTC)
        pause = PausedPartitionView(
            id=partition, reason=reason, offset=offset, since=now, instance=self._instance, release=self.release
        )
        self._paused[partition] = pause
        self._send_soon(PartitionPaused(key=partition, pause=pause))

    def resume(self, partition: str) -> None:
        """Announce that a partition is no longer paused, as ``pause`` does."""
        self._paused.pop(partition, None)
        self._send_soon(PartitionResumed(key=partition, id=partition, at=datetime.now(UTC)))

    async def stop(self) -> None:
        """End the announcements that could not be made."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _send_soon(self, message: Message) -> None:
        task = asyncio.create_task(self._send(message))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, message: Message) -> None:
        while True:
            try:
                await self._publish(message)
            except BusDown:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return
