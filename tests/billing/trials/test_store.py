"""Queries of the store of trials."""

from typing import Any

import pytest

from services.billing.trials.models import TrialDevice
from tests.billing.conftest import Shop


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("of_device", TrialDevice(beak_id="beak_1", fingerprint="print_1")),
        ("of_device", TrialDevice(beak_id="beak_1", fingerprint=None)),
        ("of_person", ["k1.a", "k2.a"]),
    ],
)
async def test_trials_are_found_by_an_index(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, name: str, argument: Any
) -> None:
    trials, queries = shop.harness.context.trials, []

    class Recorded:
        def find(self, query: Any) -> Any:
            queries.append(query)
            return shop.harness.database["trials"].find(query)

    monkeypatch.setattr(trials, "_collection", Recorded())
    assert await getattr(trials, name)(argument) == []
    [query] = queries
    plan = await shop.harness.database["trials"].find(query).explain()
    assert "COLLSCAN" not in repr(plan["queryPlanner"]["winningPlan"])
