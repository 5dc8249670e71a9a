from __future__ import annotations

import math
from pathlib import Path

import pytest

from services.auth.audit.store import AuditEntries
from tests.bench import scale
from tests.bench.markdown import render
from tests.bench.sizes import Cost

ROOT = Path(__file__).parents[2]


def test_the_tables_of_the_document_are_computed_from_the_measured_costs() -> None:
    document = (ROOT / scale.DOCUMENT).read_text()
    assert render(document, scale.tables(scale.load(ROOT / scale.COSTS))) == document


def test_every_operation_of_the_model_was_measured() -> None:
    assert {cost.name for cost in scale.load(ROOT / scale.COSTS)} == set(scale.PER_USER_AND_MONTH)


def test_a_size_is_rate_times_bytes_times_retention() -> None:
    name = "authenticate_user, refresh"
    cost = Cost(name, {"auth.audit": 100.0}, {}, {"auth.events": 10.0}, {"auth": 2.0})
    model = scale.Model({name: cost})
    a_day = scale.USERS * scale.PER_USER_AND_MONTH[name] / 30
    assert math.isclose(model.collections()["auth.audit"], 100 * a_day * 180, rel_tol=1e-6)
    # Kafka deletes whole segments, each of six hours, after seven days.
    assert math.isclose(model.topics()["auth.events"], 10 * a_day * 7.25, rel_tol=1e-6)
    assert math.isclose(model.cores()["auth"], scale.PEAK * 0.002 * a_day / 86_400, rel_tol=1e-6)


def test_what_has_no_retention_is_kept_once_for_each_user() -> None:
    cost = Cost(scale.ONCE[0], {"auth.users": 50.0, "auth.limits": 3.0}, {}, {}, {})
    sizes = scale.Model({cost.name: cost}).collections()
    assert sizes["auth.users"] == 50 * scale.USERS
    assert sizes["auth.limits"] < 3 * scale.USERS


@pytest.mark.parametrize(("topic", "kept"), [("auth.commands", "7.25 days"), ("gateway.replies", "20 minutes")])
def test_topics_are_kept_for_their_retention_and_a_segment(topic: str, kept: str) -> None:
    assert scale._topic_kept(topic) == kept


def test_logins_leave_what_their_operations_leave_for_as_long_as_it_is_kept() -> None:
    link, code = (
        Cost(name, {"auth.inbox": size, "auth.audit": size}, {}, {"auth.audit": size, "gateway.replies": size})
        for name, size in zip(scale.LOGIN, (1.0, 2.0), strict=True)
    )
    rows = scale.Model({each.name: each for each in (link, code)}).after_logins()
    day = 3 * 86_400 * scale.LOGINS_PER_SECOND
    assert {store: (after, end) for store, (_, _, after, end) in rows.items()} == {
        ("MongoDB", "auth.inbox"): (8 * day, 8 * day),
        ("MongoDB", "auth.audit"): (8 * day, 180 * day),
        ("Kafka", "auth.audit"): (1.25 * day, 1.25 * day),
        ("Kafka", "gateway.replies"): (day / 72, day / 72),
    }


def test_collections_of_the_model_exist() -> None:
    assert f"auth.{AuditEntries.COLLECTION}" in scale.KEPT
