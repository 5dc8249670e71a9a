"""Retention of audit entries, and the indexes of operators' queries."""

from datetime import timedelta
from typing import Any

import pytest
from pymongo import IndexModel

from services.auth.audit.store import AuditEntries
from shared.mongo import ensure_indexes
from tests.auth.flows import log_in
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


@pytest.mark.parametrize(
    ("conditions", "index"),
    [
        ({"userId": "user_1"}, "userId_1__id_1"),
        ({"userId": "user_1", "outcome": "refused"}, "userId_1__id_1"),
        ({"action": "log_in"}, "action_1__id_1"),
        ({}, "_id_"),
    ],
)
async def test_every_page_is_read_in_the_order_of_an_index(
    harness: ServiceHarness, conditions: dict[str, Any], index: str
) -> None:
    await ensure_indexes(harness.database, indexes(180))
    await log_in(harness)
    plan = await harness.database["audit"].find(conditions).sort("_id", -1).limit(101).explain()
    stages = str(plan["queryPlanner"]["winningPlan"])
    assert f"'indexName': '{index}'" in stages
    assert "'SORT'" not in stages
    assert "COLLSCAN" not in stages
