"""Store of the numbers of messages that sealing keys have sealed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prometheus_client import Gauge

from shared.documents import Rows

SEALED: Final = Gauge(
    "nest_sealing_key_messages", "Messages that a sealing key has sealed, at most; safe up to 2^32.", ["key_id"]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingKey:
    """The number of messages that a sealing key has sealed at most; its ID is the key ID."""

    id: str
    messages: int
    version: int = 1


class SealingKeys(Rows[SealingKey]):
    """The collection ``sealing_keys``."""

    COLLECTION: Final = "sealing_keys"
    INDEXES: Final = ()

    async def export_metrics(self) -> None:
        """Set the gauge of every key."""
        for key in await self._all(self._collection.find()):
            SEALED.labels(key.id).set(key.messages)
