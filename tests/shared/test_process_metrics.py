"""Metrics of a process."""

from __future__ import annotations

import asyncio
import time

from shared.process_metrics import EventLoopDelay, process_metrics
from tests.metrics import value, values
from tests.stack import eventually


def delays_up_to(seconds: str) -> float:
    return value("nest_event_loop_delay_seconds_bucket", service="blocked", le=seconds)


async def test_a_blocked_event_loop_is_measured() -> None:
    task = EventLoopDelay("blocked", interval=0.01)
    task.start()
    try:
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 -- the fault under test
        await eventually(lambda: delays_up_to("+Inf") > delays_up_to("0.25"), what="a delay above 0.25 s")
    finally:
        await task.stop()


async def test_the_versions_are_exported() -> None:
    async with process_metrics("some-service"):
        pass
    (exported,) = [labels for labels in values("nest_build_info") if "some-service" in labels]
    assert all(exported)
