"""Where billing keeps what it knows: MongoDB's documents, and nothing that decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import IndexModel

from services.billing.store import (
    differences,
    disputes,
    events,
    mappings,
    payments,
    runs,
    schedule,
    subscriptions,
    trials,
)
from shared.personal_data.erasure import ErasedIds

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    **subscriptions.INDEXES,
    **trials.INDEXES,
    **mappings.INDEXES,
    **payments.INDEXES,
    **disputes.INDEXES,
    **events.INDEXES,
    ErasedIds.COLLECTION: (),
    **runs.INDEXES,
    **differences.INDEXES,
    **schedule.INDEXES,
}
