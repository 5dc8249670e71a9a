"""Clock check: compares the clock of a process with those of MongoDB and Kafka, and announces the process.

A process whose clock is wrong would issue tokens and links that have already expired, or accept expired ones.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from datetime import UTC
from typing import Any, Final

from prometheus_client import Gauge

from shared.bus.producer import BusDown, Producer
from shared.bus.topics import INSTANCES
from shared.metrics import DEPENDENCY_UP
from shared.mongo import Client, dependency_down
from shared.telemetry import log

WARNING_SECONDS: Final = 2.0
"""Skew from which the process warns."""
MAX_SECONDS: Final = 30.0
"""Skew from which the process takes no more messages: the leeway of tokens, links and codes."""
CHECK_SECONDS: Final = 10.0
"""Interval of the checks and announcements."""
MEASURE_SECONDS: Final = 2.0
"""Timeout of one measurement; a reference that does not answer in time is ignored."""
MONGODB: Final = "MongoDB"
KAFKA: Final = "Kafka"
SKEW: Final = Gauge(
    "nest_clock_skew_seconds",
    "Seconds by which the clock of this process is ahead of a reference, less the uncertainty of the measurement.",
    ["service", "reference"],
)


class ClockCheck:
    """The skew of this process's clock.

    The references are MongoDB's clock and the time at which Kafka appends the announcement of this process to the topic
    ``instances``. `nest doctor` reads these announcements, and so knows every instance.

    Args:
        service: service name.
        instance: instance name.
        producer: sends the announcements.
        client: for MongoDB's clock; None in the gateway, which has no database.
        clock: this process's clock, in seconds since 1970.

    Attributes:
        skew: seconds by which this clock is ahead, for each reference that answered the last check.
    """

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        producer: Producer,
        client: Client | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._instance = instance
        self._producer = producer
        self._client = client
        self._clock = clock
        self._level = ""
        self.skew: dict[str, float] = {}

    @property
    def wrong(self) -> bool:
        """Whether this clock differs by more than ``MAX_SECONDS`` from every reference that answers.

        If another reference agrees with this clock, then the one that differs is wrong.
        """
        return bool(self.skew) and all(abs(skew) > MAX_SECONDS for skew in self.skew.values())

    def problems(self) -> list[str]:
        """Return the reason why the health check fails, if the clock is wrong."""
        if not self.wrong:
            return []
        return [f"the clock is {_described(self.skew)}: synchronize it by NTP"]

    async def measure(self) -> None:
        """Compare this clock with each reference, and announce this process."""
        mongodb = {} if self._client is None else await self._measure(MONGODB, self._mongodb_time)
        self.skew = {**mongodb, **({KAFKA: self.skew[KAFKA]} if KAFKA in self.skew else {})}
        self.skew = {**mongodb, **await self._measure(KAFKA, self._kafka_time)}
        for reference in (MONGODB, KAFKA):
            if reference in self.skew:
                SKEW.labels(self._service, reference).set(self.skew[reference])
        self._log()

    async def _measure(self, reference: str, read: Callable[[], Awaitable[float | None]]) -> dict[str, float]:
        before, began = self._clock(), time.monotonic()
        try:
            async with asyncio.timeout(MEASURE_SECONDS):
                there = await read()
        except Exception as failure:
            DEPENDENCY_UP.labels(self._service, reference.lower()).set(0)
            if not (dependency_down(failure) or isinstance(failure, BusDown | TimeoutError)):
                raise
            # The outage has log entries and health checks of its own.
            return {}
        DEPENDENCY_UP.labels(self._service, reference.lower()).set(1)
        if there is None:
            return {}
        uncertainty = (time.monotonic() - began) / 2
        skew = before + uncertainty - there
        certain = max(0.0, abs(skew) - uncertainty)
        return {reference: round(certain if skew > 0 else -certain, 3)}

    async def _mongodb_time(self) -> float:
        assert self._client is not None  # noqa: S101 -- the caller has checked it
        hello = await self._client.admin.command("hello")
        there: float = hello["localTime"].replace(tzinfo=UTC).timestamp()
        return there

    async def _kafka_time(self) -> float | None:
        announcement = {
            "service": self._service,
            "instance": self._instance,
            "time": round(self._clock() * 1000),
            "skew": self.skew,
            "stopped": self.wrong,
        }
        key = f"{self._service} {self._instance}"
        appended = await self._producer.send_record(
            INSTANCES.name, json.dumps(announcement).encode(), (), key=key.encode()
        )
        return None if appended is None else appended / 1000

    def _log(self) -> None:
        largest = max((abs(skew) for skew in self.skew.values()), default=0.0)
        level = "wrong" if self.wrong else "differs" if largest > WARNING_SECONDS else "" if self.skew else "unknown"
        if level == self._level:
            return
        self._level = level
        if level == "wrong":
            log.critical("clock is wrong, no more messages are taken", skew=self.skew, instance=self._instance)
        elif level == "unknown":
            log.warning("clock not compared", instance=self._instance)
        elif level == "differs":
            log.warning("clock differs", skew=self.skew, instance=self._instance)
        else:
            log.info("clock agrees", skew=self.skew, instance=self._instance)


def _described(skew: dict[str, float]) -> str:
    return " and ".join(
        f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} {reference}'s"
        for reference, seconds in skew.items()
    )


class ClockGate:
    """Keeps a context open while the clock of this process is right.

    Args:
        check: compares the clock.
        opened: the context, for example a running consumer; opened anew each time.
        seconds: interval of the checks.
    """

    def __init__(
        self,
        check: ClockCheck,
        opened: Callable[[], AbstractAsyncContextManager[Any]],
        *,
        seconds: float = CHECK_SECONDS,
    ) -> None:
        self._check = check
        self._opened = opened
        self._seconds = seconds
        self._stack: AsyncExitStack | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Check the clock, open the context if it is right, and check on in the background."""
        await self._check.measure()
        await self._open_or_close()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the checks and close the context."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close()

    async def _run(self) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        while not stopping.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await asyncio.shield(stopping)
            measuring = asyncio.create_task(self._check.measure())
            await asyncio.wait({measuring, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                measuring.cancel()
                await asyncio.gather(measuring, return_exceptions=True)
                return
            try:
                await measuring
                await self._open_or_close()
            except Exception:  # noqa: BLE001 -- the next check tries again, whatever the error
                log.exception("clock gate failed")

    async def _open_or_close(self) -> None:
        if self._check.wrong:
            await self._close()
        elif self._stack is None:
            stack = AsyncExitStack()
            await stack.enter_async_context(self._opened())
            self._stack = stack

    async def _close(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()
