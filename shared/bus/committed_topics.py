"""Topics in which a consumer group has committed offsets, remembered in the service's database.

If Kafka has no offset of the group in one of them any more, it has lost the topic: a cluster was replaced. Without this
memory a new topic, or one without records, would look the same. A cluster may also be a copy of the one before, with
the group's offsets, and lack its newest records; then its ID is another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import cluster_id
from shared.database_version import COLLECTION, upsert
from shared.mongo import Collection, Database, dependency_down
from shared.telemetry import log

ROW: Final = "committed topics"


class CommittedTopics:
    """The topics of one service's consumer group, by their full names.

    Attributes:
        names: the topics that are known to have offsets.
    """

    def __init__(self, database: Database, kafka: KafkaConnection) -> None:
        self._collection: Collection = database[COLLECTION]
        self._kafka = kafka
        self._cluster: str | None = None
        self._by_cluster: dict[str, frozenset[str]] = {}

    @property
    def names(self) -> frozenset[str]:
        """All topics that are known to have had offsets, in whichever cluster."""
        return frozenset().union(*self._by_cluster.values())

    async def load(self) -> None:
        """Read them; raise PyMongoError if MongoDB is unavailable."""
        row = await self._collection.find_one({"_id": ROW})
        self._by_cluster = {cluster: frozenset(names) for cluster, names in (row or {}).get("clusters", {}).items()}

    async def elsewhere(self) -> frozenset[str]:
        """The topics whose offsets were all committed in another cluster; raise KafkaError if Kafka is unavailable."""
        if self._cluster is None:
            self._cluster = await cluster_id(self._kafka)
        return self.names - self._by_cluster.get(self._cluster, frozenset())

    async def add(self, names: Iterable[str]) -> None:
        """Add topics in which an offset was committed. If MongoDB is unavailable, a later commit adds them."""
        if self._cluster is None:
            return
        here = self._by_cluster.get(self._cluster, frozenset())
        added = sorted(set(names) - here)
        if not added:
            return
        try:
            await upsert(self._collection, {"_id": ROW}, {"$addToSet": {f"clusters.{self._cluster}": {"$each": added}}})
        except Exception as failure:
            if not dependency_down(failure):
                raise
            log.info("committed topics not stored", error=type(failure).__name__)
            return
        self._by_cluster[self._cluster] = here.union(added)
