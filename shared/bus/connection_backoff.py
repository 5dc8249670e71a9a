"""Back-off for the connections of aiokafka's clients.

While brokers are away, every task of a client connects again ten times a second. Here the pauses between two
connections of a client to one broker grow to a second.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.client import AIOKafkaClient

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between two connections to a broker that is away, of which up to half are omitted at random. The recovery is
delayed by as much."""


@dataclass(slots=True)
class _Pause:
    """The pause after a failed connection to one broker."""

    seconds: float
    until: float


_connect = AIOKafkaClient._get_conn  # noqa: SLF001 -- there is no setting for a back-off


async def _connect_with_backoff(client: Any, node_id: Any, **options: Any) -> Any:
    """Return a connection to a broker; None if the broker is away, as aiokafka's own method does."""
    pauses: dict[Any, _Pause] = client.__dict__.setdefault("_pauses", {})
    pause = pauses.get(node_id)
    if pause is not None and (remaining := pause.until - time.monotonic()) > 0:
        if {broker.nodeId for broker in client.cluster.brokers()} - pauses.keys():
            return None  # the caller may ask another broker at once
        await asyncio.sleep(remaining)
        if pauses.get(node_id, pause) is not pause:
            return None  # another task has connected meanwhile, and failed
    connection = await _connect(client, node_id, **options)
    if connection is None:
        seconds = FIRST_PAUSE if pause is None else min(2 * pause.seconds, LONGEST_PAUSE)
        pauses[node_id] = _Pause(seconds, time.monotonic() + random.uniform(seconds / 2, seconds))  # noqa: S311
    else:
        pauses.pop(node_id, None)
    return connection


def use_connection_backoff() -> None:
    """Make every client of this process back off; may be called repeatedly."""
    AIOKafkaClient._get_conn = _connect_with_backoff  # noqa: SLF001
