"""Retention of audit entries. Their lists are tested in ``tests/test_list_queries.py``."""

from datetime import timedelta
from typing import Any

from pymongo import IndexModel

from services.auth.audit.store import AuditEntries
from shared.mongo import ensure_indexes
from tests.service_harness import ServiceHarness


async def expiry(harness: ServiceHarness) -> Any:
    indexes = await harness.database["audit"].index_information()
    return indexes["at_1"]["expireAfterSeconds"]


def indexes(days: int) -> dict[str, list[IndexModel]]:
    return {AuditEntries.COLLECTION: [*AuditEntries.INDEXES, AuditEntries.expiry(timedelta(days=days))]}


async def test_changed_retention_takes_effect_at_the_next_start(harness: ServiceHarness) -> None:
    for days in (180, 7, 365):
        await ensure_indexes(harness.database, indexes(days))
        assert await expiry(harness) == days * 24 * 3600
