"""Start of a process: waits for Kafka and MongoDB, and fails with one line that names the setting."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aiokafka.errors import KafkaError

from shared.bus.kafka_connection import describe
from shared.bus.producer import BusDown
from shared.mongo import UnfitServer, dependency_down, describe_failure, refusal
from shared.settings import SettingsError
from shared.telemetry import log

FIRST_START_PAUSE: Final = 0.25
LONGEST_START_PAUSE: Final = 2.0
START_SECONDS: Final = 60.0
"""How long a start waits for Kafka and MongoDB, which may be starting too."""
LOG_SECONDS: Final = 10.0
"""Interval of the log entry while a start waits."""
SETTINGS: Final = {"Kafka": "NEST_KAFKA_BOOTSTRAP", "MongoDB": "NEST_MONGO_URL"}
"""The setting with the address of each dependency."""
Result = TypeVar("Result")


class DependencyUnavailable(Exception):
    """Kafka or MongoDB did not answer in time. The text names the setting and the reason, without credentials."""


async def retry_until_available(dependency: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat an attempt while a dependency is unavailable, for at most ``START_SECONDS``.

    Logs at once, and every ``LOG_SECONDS``, what it waits for. The failures themselves are logged at level debug.

    Args:
        dependency: a key of ``SETTINGS``.
        attempt: raises KafkaError, PyMongoError or BusDown if the dependency is unavailable.

    Raises:
        DependencyUnavailable: it was unavailable until the end.
        SettingsError: MongoDB refuses this process, or is no replica set.
    """
    setting = SETTINGS[dependency]
    started, logged, pause = time.monotonic(), 0.0, FIRST_START_PAUSE
    while True:
        try:
            return await attempt()
        except Exception as failure:
            settled = refusal(failure) or (str(failure) if isinstance(failure, UnfitServer) else None)
            unavailable = dependency_down(failure) or isinstance(failure, KafkaError | BusDown)
            if settled is None and not unavailable:
                raise
            # Without the causes: the variables of the drivers' frames contain the credentials.
            reason = describe(failure) if isinstance(failure, KafkaError | BusDown) else describe_failure(failure)
            log.debug("start interrupted", dependency=dependency, exc_info=True)
        if settled is not None:
            raise SettingsError(f"{setting}: MongoDB {settled}")
        now = time.monotonic()
        if now - started > START_SECONDS:
            raise DependencyUnavailable(f"{setting}: {dependency} has not answered for {now - started:.0f} s: {reason}")
        if not logged or now - logged >= LOG_SECONDS:
            logged = now
            log.warning(
                "waiting for a dependency",
                dependency=dependency,
                setting=setting,
                seconds=round(now - started),
                reason=reason,
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_START_PAUSE)


def tune_garbage_collector() -> None:
    """Collect garbage less often, and never examine imported objects.

    Reference counting frees what a message leaves behind. Searching for cycles among hundreds of thousands of imported
    objects after every 700 new objects only costs time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()
