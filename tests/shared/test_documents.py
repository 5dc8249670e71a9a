from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

import pytest

from shared.documents import document_of, entity_of, stored_as
from shared.messages import Part

NOW = datetime(2026, 11, 28, tzinfo=UTC)


class State(Enum):
    OPEN = "open"


class Device(Part):
    beak_id: str | None = None


@dataclass(frozen=True)
class Line:
    id: str
    line_total: int


@dataclass(frozen=True)
class Order:
    id: str
    key_hash: str = stored_as("key")
    created_at: datetime = NOW
    state: State = State.OPEN
    lines: tuple[Line, ...] = ()
    tags: tuple[str, ...] = ()
    device: Device | None = None
    ended_at: datetime | None = None
    note: str = stored_as("remark", default="none")
    version: int = 1


ORDERS = [
    Order("o1", "hash"),
    Order("o1", "hash", lines=(Line("l1", 2),), tags=("a", "b"), device=Device(beak_id="b"), ended_at=NOW, note="x"),
]


@pytest.mark.parametrize("order", ORDERS)
def test_an_entity_survives_the_round_trip(order: Order) -> None:
    assert entity_of(Order, document_of(order)) == order


def test_fields_are_stored_in_camel_case_and_under_declared_names() -> None:
    assert document_of(ORDERS[1]) == {
        "_id": "o1",
        "key": "hash",
        "createdAt": NOW,
        "state": "open",
        "lines": [{"id": "l1", "lineTotal": 2}],
        "tags": ["a", "b"],
        "device": {"beakId": "b"},
        "endedAt": NOW,
        "remark": "x",
        "version": 1,
    }


def test_a_field_that_was_added_later_takes_its_default() -> None:
    assert entity_of(Order, {"_id": "o1", "key": "hash"}) == ORDERS[0]


def test_a_missing_field_without_default_is_an_error() -> None:
    with pytest.raises(TypeError, match="key_hash"):
        entity_of(Order, {"_id": "o1"})
