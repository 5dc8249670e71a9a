"""How long a fetch waits for records: briefly while they arrive, and up to five seconds in an idle topic.

A record ends the wait of a fetch at once, so a long wait does not delay it. At rest, short waits cost the consumer and
the broker CPU time. But a long wait delays the records of a partition that the fetch leaves out, because it is paused
or its last records are not consumed yet. Kafka handles the requests of a connection one at a time, so fetches have
connections of their own, which a rebalance closes.
"""

from __future__ import annotations

import time
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.consumer import fetcher
from aiokafka.protocol.fetch import FetchRequest

FIRST_WAIT_MILLISECONDS: Final = 50
"""Wait of a fetch after one with records, and of one that leaves out a partition."""
IDLE_WAIT_MILLISECONDS: Final = 5000
"""Longest wait, in topics that have been idle for seconds; shorter than any timeout of a request."""
FRESH_SECONDS: Final = 5.5
"""Age up to which a response proves what Kafka has; longer than the longest wait."""
WAKE_SECONDS: Final = 5.0
"""Interval at which a fetcher without an event looks for something to do; aiokafka's own is 0.2 s."""
FETCHES: Final = "fetches"
"""Connection group of the fetches, beside those of ``aiokafka.client.ConnectionGroup``."""


class _FetchClient:
    """A client that sends fetches through connections of their own."""

    def __init__(self, client: AIOKafkaClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any) -> Any:
        group = FETCHES if isinstance(request, FetchRequest) else ConnectionGroup.DEFAULT
        return await self._client.send(node_id, request, group=group)


class IdleFetcher(fetcher.Fetcher):  # type: ignore[misc]
    """A fetcher whose waits double with each fetch without records.

    Args:
        client, arguments, options: those of aiokafka's fetcher.
        fetch_max_wait_ms: the longest wait.
    """

    _fetch_max_wait_ms: int

    def __init__(self, client: AIOKafkaClient, *arguments: Any, fetch_max_wait_ms: int = 500, **options: Any) -> None:
        self._first_wait_ms = min(FIRST_WAIT_MILLISECONDS, fetch_max_wait_ms)
        self._longest_wait_ms = fetch_max_wait_ms
        options["fetcher_timeout"] = WAKE_SECONDS
        super().__init__(_FetchClient(client), *arguments, fetch_max_wait_ms=self._first_wait_ms, **options)

    def _get_actions_per_node(self, assignment: Any) -> Any:
        requests, resets, timeout, invalid_metadata, paused = super()._get_actions_per_node(assignment)
        if paused or self._records:
            for _, request in requests:
                request._max_wait_ms = self._first_wait_ms  # noqa: SLF001 -- aiokafka has no setter
        if len(self._in_flight) > len(self._pending_tasks):
            # A request has ended, and its callback, which removes its node here, runs in the next iteration of the
            # event loop. Until then the node gets no request.
            timeout = 0.0
        return requests, resets, timeout, invalid_metadata, paused

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        found = bool(await super()._proc_fetch_request(assignment, node_id, request))
        if not assignment.active:
            # Otherwise the first fetch of the new assignment would come after the wait of this one.
            connection = self._client._conns.get((node_id, FETCHES))  # noqa: SLF001 -- no method closes one
            if connection is not None:
                connection.close()
        self._fetch_max_wait_ms = (
            self._first_wait_ms if found else min(2 * self._fetch_max_wait_ms, self._longest_wait_ms)
        )
        return found


def fetched_end(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int | None:
    """Return the end offset of a partition as of Kafka's last response to a fetch; None if that is not fresh."""
    if partition not in consumer.assignment():
        return None
    responded = consumer.last_poll_timestamp(partition)
    if responded is None or responded < (time.time() - FRESH_SECONDS) * 1000:
        return None
    end: int | None = consumer.highwater(partition)
    return end
