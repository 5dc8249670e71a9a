"""Growth of topics: the orders of ``nest topics grow`` to every process, and how a process obeys them.

The key decides the partition of a message by the number of partitions. So a topic gets more only while nothing is in
it that is not handled, and while no process sends to it; and no process sends again before it knows the new number.
The orders are records on the topic ``topic-growth``, authentic as every other record. Each has a lease: if the command
dies, the processes continue by themselves.

| stage | gateways | services |
|---|---|---|
| ``refuse`` | refuse requests with 503 | send no due timers |
| ``hold`` | as before | messages to the topics wait |
| ``grown`` | as before | consume the new partitions |
| ``done`` | read the number of partitions, then continue | the same |
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from shared.bus.producer import BusDown, Producer
from shared.bus.topic_reader import TopicReader
from shared.bus.topics import CONSUMERS, GROWTH, WRITERS
from shared.telemetry import log

ORDER_KEY: Final = b"order"
LEASE_SECONDS: Final = 30.0
"""How long a process obeys an order that is not renewed."""
CLOCK_MARGIN: Final = 30.0
"""Difference of the clocks of this process and of Kafka, up to which an old order is still obeyed at the start."""
SETTLE_SECONDS: Final = 15.0
"""Timeout of the messages on their way; without their end the order is not confirmed."""
RETRY_SECONDS: Final = 0.5
GATEWAY: Final = "gateway"
SENT_BY_GATEWAYS: Final = frozenset(
    topic for topic, writers in WRITERS.items() if GATEWAY in writers and CONSUMERS[topic]
)
Stage = Literal["refuse", "hold", "grown", "done"]
STAGES: Final[tuple[Stage, ...]] = ("refuse", "hold", "grown", "done")


@dataclass(frozen=True, slots=True)
class Order:
    """An order of the command.

    Attributes:
        id: ID of this run of the command.
        stage: what to do.
        partitions: the least number of partitions of each topic to grow, without prefix, as Kafka has it now.
    """

    id: str
    stage: Stage
    partitions: dict[str, int]

    def encode(self) -> bytes:
        """Return the value of its record."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, value: bytes) -> Order:
        """Parse the value of a record.

        Raises:
            ValueError, TypeError, KeyError: it is no order.
        """
        fields = json.loads(value)
        if fields["stage"] not in STAGES:
            raise ValueError("unknown stage")
        partitions = {str(topic): int(number) for topic, number in fields["partitions"].items()}
        return cls(str(fields["id"]), fields["stage"], partitions)


class GrowthFollower:
    """Obeys the orders in one process.

    Args:
        producer: the producer of the process.
        reader: the topic reader of the process.
        prefix: prefix of every topic name.
        service: ``gateway``, or the service of the process.
        instance: instance name, as in the announcements.
        consume: makes the consumer read the additional partitions.
        sent_by_gateways: topics that a gateway stops to send to.

    Attributes:
        pausing: whether requests are to be refused, and due timers to wait.
    """

    def __init__(
        self,
        producer: Producer,
        *,
        reader: TopicReader,
        prefix: str,
        service: str,
        instance: str,
        consume: Callable[[], Awaitable[None]] | None = None,
        sent_by_gateways: Collection[str] = SENT_BY_GATEWAYS,
    ) -> None:
        self._producer = producer
        self._service = service
        self._instance = instance
        self._consume = consume
        self._sent_by_gateways = sent_by_gateways
        self._reader = reader
        self._topic = prefix + GROWTH.name
        self._newest: Order | None = None
        self._lease_ends = 0.0
        self._received = asyncio.Event()
        self._obeyed: Order | None = None
        self._task: asyncio.Task[None] | None = None
        self.pausing = False

    async def start(self) -> None:
        """Obey the present order, if there is one, and follow.

        Without the topic nothing is followed: this process confirms no order, so no topic can grow.

        Raises:
            BusDown: Kafka is unavailable.
        """
        try:
            await self._producer.partitions(GROWTH.name)
        except BusDown as missing:
            log.error("growth is not followed: run nest topics apply", topic=GROWTH.name, error=str(missing))
            return
        await self._reader.follow({self._topic: self._receive})
        if self._newest is not None and self._newest.stage == "done":
            # This producer has just read the numbers of partitions.
            self._obeyed = self._newest
        elif self._newest is not None:
            await self._obey(self._newest)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Obey no longer. What is held stays held: the process ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _receive(self, record: Any) -> None:
        if record.key != ORDER_KEY or record.value is None:
            return
        age = time.time() - record.timestamp / 1000
        order = Order.parse(record.value)
        if order.stage != "done" and age > LEASE_SECONDS + CLOCK_MARGIN:
            return
        self._newest = order
        self._lease_ends = time.monotonic() + LEASE_SECONDS
        self._received.set()

    async def _run(self) -> None:
        """Obey each order; after the lease of the last one continue as usual."""
        while True:
            order = self._newest
            if order is not None and order != self._obeyed:
                try:
                    await self._obey(order)
                except (BusDown, TimeoutError) as failure:
                    log.warning("growth order not obeyed", stage=order.stage, error=type(failure).__name__)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
            active = self._obeyed is not None and self._obeyed.stage != "done"
            self._received.clear()
            try:
                async with asyncio.timeout(max(0.0, self._lease_ends - time.monotonic()) if active else None):
                    await self._received.wait()
            except TimeoutError:
                if active and self._newest is not None and time.monotonic() >= self._lease_ends:
                    log.warning("growth of topics abandoned", order=self._newest.id)
                    self._newest = Order(self._newest.id, "done", {})

    async def _obey(self, order: Order) -> None:
        """Obey an order, and confirm it.

        Raises:
            BusDown, TimeoutError: Kafka does not answer, so the order is not obeyed completely.
        """
        log.info("growth of topics", order=order.id, stage=order.stage, topics=list(order.partitions))
        if order.stage == "done":
            await self._producer.release(order.partitions)
            self.pausing = False
        else:
            self.pausing = True
            if self._service == GATEWAY:
                self._producer.hold(self._sent_by_gateways, refuse=True)
            elif order.stage != "refuse":
                self._producer.hold(order.partitions, refuse=False)
            if self._service == GATEWAY or order.stage != "refuse":
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self._producer.settle()
            if order.stage == "grown" and self._consume is not None:
                await self._consume()
        self._obeyed = order
        confirmation = {"id": order.id, "stage": order.stage, "service": self._service, "instance": self._instance}
        key = f"{self._service} {self._instance}".encode()
        await self._producer.send_record(GROWTH.name, json.dumps(confirmation).encode(), (), key=key)
