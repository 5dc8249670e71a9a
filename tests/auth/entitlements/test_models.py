from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.auth.entitlements.models import Entitlements, entitlement_claims

NOW = datetime(2026, 12, 1, tzinfo=UTC)
STORED = Entitlements(id="user_1", features=("export", "seats"), ent_v=3, updated_at=NOW)


@pytest.mark.parametrize(
    ("features", "ent_v", "expected"),
    [
        (("a",), 4, (("a",), 4)),
        ((), 9, ((), 9)),
        (("a",), 3, (STORED.features, 3)),
        (("a",), 2, (STORED.features, 3)),
    ],
)
def test_only_a_newer_change_replaces_the_features(features: Any, ent_v: int, expected: Any) -> None:
    changed = STORED.change(features, ent_v, at=NOW)
    assert (changed.features, changed.ent_v) == expected


@pytest.mark.parametrize(
    ("features", "claims"),
    [
        (None, {"ent": [], "ent_v": 0}),
        ((), {"ent": [], "ent_v": 3}),
        (("export", "seats"), {"ent": ["export", "seats"], "ent_v": 3}),
        (tuple(f"f{number}" for number in range(50)), {"ent": [f"f{number}" for number in range(50)], "ent_v": 3}),
        (tuple(f"f{number}" for number in range(51)), {"ent_v": 3}),
        (("x" * 1_496,), {"ent": ["x" * 1_496], "ent_v": 3}),
        (("x" * 1_497,), {"ent_v": 3}),
        # JSON escapes each of them with six characters.
        (("ä" * 250,), {"ent_v": 3}),
    ],
    ids=["none", "empty", "two", "50", "51", "1500_characters", "1501_characters", "escaped"],
)
def test_claim_has_all_features_or_is_left_out(features: Any, claims: dict[str, Any]) -> None:
    assert entitlement_claims(None if features is None else replace(STORED, features=features)) == claims
