"""Fetch sessions: a fetch and its response name only the partitions that changed since the last ones (KIP-227).

aiokafka names all partitions of a consumer in each fetch, so the broker does in each response. A service has more
than a hundred, and to encode and decode them all for each record took longer than to handle it.

A broker may forget a session at any time, and has room for a limited number. Then the next fetch names all partitions.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.protocol.fetch import FetchRequest

NO_SESSION: Final = 0
FULL: Final = 0
"""Epoch of a fetch that names all partitions. It ends the session of its ID, if there is one, and begins another."""
LAST_EPOCH: Final = (1 << 31) - 1
"""After it comes 1 again."""
FIRST_VERSION: Final = 7
"""Version of the request that brought sessions, with Kafka 1.1. Older brokers get all partitions each time."""


class SessionFetch(FetchRequest):  # type: ignore[misc]
    """A fetch in a session.

    Args:
        whole: the fetch of all partitions, as aiokafka builds it.
        session_id, epoch: number of the session, and of the fetch in it.
        changed: what it names of ``whole.topics``.
        forgotten: partitions by topic that are no longer fetched.
    """

    def __init__(
        self,
        whole: FetchRequest,
        *,
        session_id: int,
        epoch: int,
        changed: list[tuple[str, list[tuple[int, int, int]]]],
        forgotten: list[tuple[str, list[int]]],
    ) -> None:
        self.__dict__.update(whole.__dict__)
        self._topics = changed
        self._whole = whole
        self._session = {"session_id": session_id, "session_epoch": epoch, "forgotten_topics_data": forgotten}

    def build(self, request_struct_class: Any) -> Any:
        """Return the request in a version that the broker knows."""
        if request_struct_class.API_VERSION < FIRST_VERSION:
            return self._whole.build(request_struct_class)
        built = super().build(request_struct_class)
        built.__dict__.update(self._session)
        return built


class FetchSession:
    """The session of a consumer with a broker, which gets one fetch at a time.

    Attributes:
        unchanged: the offsets from which the broker was asked for records of the partitions that it had nothing new of,
            as of its last response.
    """

    def __init__(self) -> None:
        self._id = NO_SESSION
        self._epoch = FULL
        self._known: dict[TopicPartition, tuple[int, int]] = {}
        """Offset and most bytes of each partition, as the broker knows them."""
        self.unchanged: dict[TopicPartition, int] = {}

    def restart(self) -> None:
        """Let the next fetch name all partitions."""
        self._epoch = FULL
        self._known = {}
        self.unchanged = {}

    def next_fetch(self, whole: FetchRequest) -> SessionFetch:
        """Return the fetch to send instead of one that names all partitions."""
        known = self._known
        self._known = wanted = {
            TopicPartition(topic, number): (offset, most)
            for topic, partitions in whole.topics
            for number, offset, most in partitions
        }
        changed, forgotten = defaultdict(list), defaultdict(list)
        for partition, position in wanted.items():
            if known.get(partition) != position:
                changed[partition.topic].append((partition.partition, *position))
        for partition in known.keys() - wanted.keys():
            forgotten[partition.topic].append(partition.partition)
        return SessionFetch(
            whole,
            session_id=self._id,
            epoch=self._epoch,
            changed=list(changed.items()),
            forgotten=list(forgotten.items()),
        )

    def take(self, response: Any) -> None:
        """Continue the session after the response to its last fetch."""
        session_id = getattr(response, "session_id", NO_SESSION)
        if session_id == NO_SESSION or response.error_code:
            self.restart()
            return
        self._id = session_id
        self._epoch = self._epoch % LAST_EPOCH + 1
        self.unchanged = {}
        if not response.throttle_time_ms:  # otherwise it says nothing about any partition
            named = {(topic, number) for topic, partitions in response.topics for number, *_ in partitions}
            self.unchanged = {each: offset for each, (offset, _) in self._known.items() if each not in named}
