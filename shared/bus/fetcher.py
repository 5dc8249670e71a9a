"""Fetcher of all consumers: how long a fetch waits for records, and what it names.

A fetch waits for records for up to five seconds. A record ends the wait at once, so that it is not delayed, and short
waits would cost the consumer and the broker CPU time. But a wait delays the records of a partition that the fetch
leaves out, because it is paused or its last records are not consumed yet, so such a fetch waits briefly. So do those
before the first response without records, by which a reader recognizes that it has read everything. Kafka handles the
requests of a connection one at a time, so fetches have connections of their own, which a rebalance closes.

A fetch names only what changed (`shared.bus.fetch_sessions`), and what to fetch is found without looking at each
partition several times, as aiokafka does: a service has more than a hundred.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.consumer import fetcher
from aiokafka.protocol.fetch import FetchRequest

from shared.bus.fetch_sessions import FetchSession

FIRST_WAIT_MILLISECONDS: Final = 50
"""Wait of a fetch that leaves out a partition, and of those of a new assignment until one has found no records."""
IDLE_WAIT_MILLISECONDS: Final = 5000
"""Wait of all other fetches; shorter than any timeout of a request."""
FRESH_SECONDS: Final = 5.5
"""Age up to which a response proves what Kafka has; longer than the longest wait."""
WAKE_SECONDS: Final = 5.0
"""Interval at which a fetcher without an event looks for something to do; aiokafka's own is 0.2 s."""
FETCHES: Final = "fetches"
"""Connection group of the fetches, beside those of ``aiokafka.client.ConnectionGroup``."""

Partitions = list[tuple[TopicPartition, Any]]
"""Partitions with the states that aiokafka keeps of them."""
NO_LEADER: Final = frozenset((None, -1))
"""What aiokafka names as the leader of a partition without one."""


class _FetchClient:
    """A client that sends fetches through connections of their own, in sessions.

    Attributes:
        sessions: the session with each broker.
        responses: number of responses to fetches so far.
    """

    def __init__(self, client: AIOKafkaClient) -> None:
        self._client = client
        self.sessions: defaultdict[int, FetchSession] = defaultdict(FetchSession)
        self.responses = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any) -> Any:
        if not isinstance(request, FetchRequest):
            return await self._client.send(node_id, request, group=ConnectionGroup.DEFAULT)
        session = self.sessions[node_id]
        try:
            response = await self._client.send(node_id, session.next_fetch(request), group=FETCHES)
        except BaseException:
            session.restart()
            raise
        session.take(response)
        self.responses += 1
        return response


class IdleFetcher(fetcher.Fetcher):  # type: ignore[misc]
    """A fetcher that waits for records for long, unless somebody waits for what it does next.

    Args:
        client, arguments, options: those of aiokafka's fetcher.
        fetch_max_wait_ms: the longest wait.
    """

    _client: _FetchClient
    _fetch_max_wait_ms: int

    def __init__(self, client: AIOKafkaClient, *arguments: Any, fetch_max_wait_ms: int = 500, **options: Any) -> None:
        self._first_wait_ms = min(FIRST_WAIT_MILLISECONDS, fetch_max_wait_ms)
        self._longest_wait_ms = fetch_max_wait_ms
        self._assignment: Any = None
        self._by_leader: dict[int | None, Partitions] | None = None
        client.cluster.add_listener(self._forget_leaders)
        options["fetcher_timeout"] = WAKE_SECONDS
        super().__init__(_FetchClient(client), *arguments, fetch_max_wait_ms=self._first_wait_ms, **options)

    def _get_actions_per_node(self, assignment: Any) -> Any:
        """Return what is to be done, as aiokafka's method does."""
        fetchable: dict[int | None, dict[str, list[Any]]] = {}
        resets: dict[int | None, list[TopicPartition]] = {}
        resumes: list[Any] = []
        backoffs: list[float] = []
        leaderless = False
        for leader, partitions in self._partitions_by_leader(assignment).items():
            buffered = [found.calculate_backoff() for each, _ in partitions if (found := self._records.get(each))]
            if backoff := max(buffered, default=0):
                backoffs.append(backoff)
            if leader in NO_LEADER:
                leaderless = leaderless or len(buffered) < len(partitions)
            elif leader not in self._in_flight:
                lacking, paused, topics = self._to_fetch(partitions)
                resumes += paused
                if lacking:
                    resets[leader] = lacking
                elif topics and not backoff:
                    fetchable[leader] = topics
        wait = self._first_wait_ms if resumes or self._records else self._fetch_max_wait_ms
        fetches = [(leader, self._fetch_of(topics, wait)) for leader, topics in fetchable.items()]
        timeout = min(backoffs, default=WAKE_SECONDS)
        if len(self._in_flight) > len(self._pending_tasks):
            # A request has ended, and its callback, which removes its node here, runs in the next iteration of the
            # event loop. Until then the node gets no request.
            timeout = 0.0
        return fetches, resets, timeout, leaderless, resumes

    def _to_fetch(self, partitions: Partitions) -> tuple[list[TopicPartition], list[Any], dict[str, list[Any]]]:
        """Return the partitions without a position, the futures of paused ones, and by topic what is to be fetched."""
        lacking: list[TopicPartition] = []
        paused: list[Any] = []
        topics: dict[str, list[Any]] = defaultdict(list)
        for partition, state in partitions:
            if partition in self._records:
                continue
            if not state.has_valid_position:
                lacking.append(partition)
            elif state.paused:
                paused.append(state.resume_fut)
            else:
                position = (partition.partition, state.position, self._max_partition_fetch_bytes)
                topics[partition.topic].append(position)
        return lacking, paused, topics

    def _fetch_of(self, topics: dict[str, list[Any]], wait: int) -> FetchRequest:
        return FetchRequest(
            wait,
            self._fetch_min_bytes,
            self._fetch_max_bytes,
            self._isolation_level,
            list(topics.items()),
        )

    def _begin(self, assignment: Any) -> None:
        self._assignment = assignment
        self._by_leader = None
        self._fetch_max_wait_ms = self._first_wait_ms
        # The states of its partitions are new, so the broker has to say anew what it said of them before.
        for session in self._client.sessions.values():
            session.restart()

    def _partitions_by_leader(self, assignment: Any) -> dict[int | None, Partitions]:
        """Return the partitions with their states by leader, which change with the metadata and the assignment."""
        if assignment is not self._assignment:
            self._begin(assignment)
        if self._by_leader is None:
            self._by_leader = defaultdict(list)
            for each in assignment.tps:
                leader = self._client.cluster.leader_for_partition(each)
                self._by_leader[leader].append((each, assignment.state_value(each)))
        return self._by_leader

    def _forget_leaders(self, _: Any) -> None:
        self._by_leader = None

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        responses = self._client.responses
        found = bool(await super()._proc_fetch_request(assignment, node_id, request))
        if not assignment.active:
            # Otherwise the first fetch of the new assignment would come after the wait of this one.
            connection = self._client._conns.get((node_id, FETCHES))  # noqa: SLF001 -- no method closes one
            if connection is not None:
                connection.close()
        now = int(time.time() * 1000)
        for partition, offset in self._client.sessions[node_id].unchanged.items():
            state = assignment.state_value(partition)
            if state.has_valid_position and state.position == offset:
                state.timestamp = now
        if not found and self._client.responses > responses:
            self._fetch_max_wait_ms = self._longest_wait_ms
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
