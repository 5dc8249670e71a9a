"""State of the running system, measured by this gateway: consumer groups and topics of Kafka, and its own requests.

The gateway measures the consumer lag anyway, for metrics. While somebody looks, it does so every 2 seconds instead of
every 30, and reads the members of the consumer groups too.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Final

from services.gateway.endpoint import CALL_SECONDS
from shared.bus.consumer_lag import LagExporter, LagReader, Members
from shared.bus.kafka_connection import KafkaConnection
from shared.messages.gateway import (
    GatewayStateView,
    GetSystemState,
    InstanceView,
    ServiceStateView,
    SystemStateView,
    TopicStateView,
)

WATCHED_INTERVAL_SECONDS: Final = 2.0
WATCHED_SECONDS: Final = 10.0
"""How long a look keeps the short interval."""
WAIT_SECONDS: Final = 4.0
"""How long a look waits for a fresh measurement."""
RATE_SECONDS: Final = 10.0
"""Period of rates while somebody looks: services commit their offsets once a second, so shorter ones would jump."""
STABLE: Final = "Stable"
"""Kafka's name of the state in which every member has its partitions."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Counts at one time, from which rates are computed.

    Attributes:
        at: monotonic time.
        handled: handled records by service.
        written: ends of all partitions, by topic.
        requests: requests to this gateway.
    """

    at: float
    handled: Mapping[str, int]
    written: Mapping[str, int]
    requests: int


class SystemMonitor(LagExporter):
    """Measures the lag of all services, and answers ``get_system_state``.

    Args:
        kafka: the connection to Kafka.
        prefix: prefix of topics and consumer groups.
        services: the services.
        instance: name of this gateway.
        problems: returns this gateway's current problems.
        calls_waiting: returns the number of calls that wait for a reply.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        prefix: str,
        services: tuple[str, ...],
        instance: str,
        problems: Callable[[], list[str]],
        calls_waiting: Callable[[], int],
    ) -> None:
        super().__init__(kafka, prefix=prefix, services=services)
        self._instance = instance
        self._problems = problems
        self._calls_waiting = calls_waiting
        self._started_at = datetime.now(UTC)
        self._members: dict[str, Members] = {}
        self._samples: deque[Sample] = deque(maxlen=30)
        self._measured_at: datetime | None = None
        self._watched_until = 0.0
        self._wake = asyncio.Event()
        self._measured = asyncio.Condition()

    async def answer(self, _query: GetSystemState) -> SystemStateView:
        """Return the present state, after a measurement if the last one is older than the short interval."""
        self._watched_until = time.monotonic() + WATCHED_SECONDS
        self._wake.set()
        if not self._fresh():
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS), self._measured:
                    await self._measured.wait_for(self._fresh)
        return self._view()

    def _fresh(self) -> bool:
        latest = self._samples[-1].at if self._samples else float("-inf")
        return bool(self._members) and time.monotonic() - latest <= WATCHED_INTERVAL_SECONDS + 1

    async def _measure(self, reader: LagReader, service: str) -> None:
        await super()._measure(reader, service)
        if self._watched:
            self._members[service] = await reader.members(self._prefix + service)

    @property
    def _watched(self) -> bool:
        return time.monotonic() < self._watched_until

    async def _pause(self) -> None:
        """Take a sample of all counts, and wait for the next measurement, or for somebody who looks."""
        written = {topic: sum(each.values()) for topic, each in self._ends().items()}
        handled = {service: lag.handled for service, lag in self.lags.items()}
        self._samples.append(Sample(time.monotonic(), handled, written, sum(requests().values())))
        self._measured_at = datetime.now(UTC)
        if not self._watched:
            # Known only while somebody looks.
            self._members.clear()
        async with self._measured:
            self._measured.notify_all()
        if self._watched:
            await asyncio.sleep(WATCHED_INTERVAL_SECONDS)
            return
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await self._wake.wait()

    def _ends(self) -> dict[str, dict[int, int]]:
        """Ends of the partitions by topic and number. Several services may consume one."""
        found: dict[str, dict[int, int]] = {}
        for lag in self.lags.values():
            for partition, each in lag.partitions.items():
                found.setdefault(partition.topic.removeprefix(self._prefix), {})[partition.partition] = each.end
        return found

    def _view(self) -> SystemStateView:
        latest = self._samples[-1] if self._samples else None
        before = self._before()
        seen = self.lags if len(self.lags) == len(self._services) and latest is not None else {}
        waiting: Counter[str] = Counter()
        for lag in seen.values():
            for partition, each in lag.partitions.items():
                waiting[partition.topic.removeprefix(self._prefix)] += each.records

        def rate(count: Callable[[Sample], int]) -> float | None:
            if latest is None or before is None:
                return None
            return round(max(0, count(latest) - count(before)) / (latest.at - before.at), 1)

        counted = requests()
        return SystemStateView(
            gateway=GatewayStateView(
                instance=self._instance,
                release=metadata.version("nest"),
                started_at=self._started_at,
                problems=tuple(self._problems()),
                calls_waiting=self._calls_waiting(),
                requests=sum(counted.values()),
                failed_requests=sum(count for status, count in counted.items() if status >= "500"),
                requests_per_second=rate(lambda sample: sample.requests),
            ),
            measured_at=self._measured_at if seen else None,
            services=tuple(
                self._service(
                    service,
                    rate(lambda sample, service=service: sample.handled.get(service, 0)),  # type: ignore[misc]
                )
                for service in seen
            ),
            topics=tuple(
                TopicStateView(
                    topic=topic,
                    partitions=len(ends),
                    lag_records=waiting[topic],
                    written_per_second=rate(
                        lambda sample, topic=topic: sample.written.get(topic, 0)  # type: ignore[misc]
                    ),
                )
                for topic, ends in sorted(self._ends().items() if seen else ())
            ),
        )

    def _before(self) -> Sample | None:
        """The oldest sample within the period of rates, or else the one before the latest."""
        if len(self._samples) < 2:  # noqa: PLR2004 -- a rate needs two
            return None
        *earlier, latest = self._samples
        return next((each for each in earlier if latest.at - each.at <= RATE_SECONDS), earlier[-1])

    def _service(self, service: str, handled_per_second: float | None) -> ServiceStateView:
        lag, group = self.lags[service], self._members.get(service, Members("", ()))
        return ServiceStateView(
            service=service,
            state="away" if not group.members else "running" if group.state == STABLE else "rebalancing",
            instances=tuple(
                InstanceView(name=each.name, host=each.host, partitions=each.partitions) for each in group.members
            ),
            lag_records=lag.records,
            lag_seconds=round(lag.seconds(time.time()), 1),
            expired_records=sum(gap.count for gap in lag.gaps),
            handled_per_second=handled_per_second,
        )


def requests() -> Counter[str]:
    """Number of requests to this gateway since its start, by status."""
    found: Counter[str] = Counter()
    for metric in CALL_SECONDS.collect():
        for sample in metric.samples:
            if sample.name.endswith("_count"):
                found[sample.labels["status"]] += int(sample.value)
    return found
