"""Which user does a payment provider's customer belong to?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderMapping:
    """Which user a customer of a payment provider belongs to."""

    id: str
    user_id: str
    provider_type: str
    provider_value: str
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None = None
    version: int = 1

    def moved(self, user_id: str, *, at: datetime) -> Self:
        """The mapping after its customer turned out to be another user's."""
        return replace(self, user_id=user_id, updated_at=at)
