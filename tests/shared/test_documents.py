from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Final, Literal

import bson
import pytest
from pydantic import Discriminator, RootModel, Tag

from shared.bus.work import Delete, Insert, Replace
from shared.documents import Rows, document_of, entity_of, stored_as
from shared.errors import Refusal
from shared.messages import Part
from tests.shared.inbox_harness import InboxHarness

NOW = datetime(2026, 11, 28, tzinfo=UTC)


class State(Enum):
    OPEN = "open"


class Device(Part):
    beak_id: str | None = None


class Card(Part):
    last_four: str


class Transfer(Part):
    last_four: str
    bank: str


def _payment_kind(payment: Any) -> str:
    fields = payment if isinstance(payment, dict) else payment.model_dump()
    return "transfer" if "bank" in fields else "card"


Payment = Annotated[Annotated[Card, Tag("card")] | Annotated[Transfer, Tag("transfer")], Discriminator(_payment_kind)]


class Labels(RootModel[tuple[State, ...]]):
    """Labels of an order."""


@dataclass(frozen=True)
class Line:
    id: str
    line_total: int
    parts: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Order:
    id: str
    key_hash: str = stored_as("key")
    created_at: datetime = NOW
    state: State = State.OPEN
    lines: tuple[Line, ...] = ()
    tags: tuple[str, ...] = ()
    size: tuple[int, str] | None = None
    device: Device | None = None
    states: frozenset[State] | None = None
    labels: Labels | None = None
    payment: Payment | None = None
    totals: dict[str, Line] | None = None
    kind: Literal["a", "b"] | int = "a"
    ended_at: datetime | None = None
    note: str = stored_as("remark", default="none")
    version: int = 1


@dataclass(frozen=True)
class Single:
    id: str


FULL = Order(
    "o1",
    "hash",
    lines=(Line("l1", 2, (Line("l2", 1),)),),
    tags=("a", "b"),
    size=(1, "cm"),
    device=Device(beak_id="b"),
    states=frozenset({State.OPEN}),
    labels=Labels((State.OPEN,)),
    payment=Transfer(last_four="4242", bank="b"),
    totals={"all": Line("l3", 3)},
    kind=7,
    ended_at=NOW,
    note="x",
)


class OrderTaken(Refusal):
    """Another order has this key."""


class OrderNotFound(Refusal):
    """No order has this ID."""


class Orders(Rows[Order], taken=OrderTaken, missing=OrderNotFound):
    COLLECTION: Final = "orders"
    INDEXES: Final = ()


@pytest.mark.parametrize("entity", [Order("o1", "hash"), FULL, replace(FULL, payment=Card(last_four="1")), Single("s")])
def test_an_entity_survives_its_trip_through_bson(entity: Any) -> None:
    stored = bson.decode(bson.encode(document_of(entity)), bson.CodecOptions(tz_aware=True, tzinfo=UTC))
    assert entity_of(type(entity), stored) == entity


def test_fields_are_stored_in_camel_case_and_under_declared_names() -> None:
    assert document_of(FULL) == {
        "_id": "o1",
        "key": "hash",
        "createdAt": NOW,
        "state": "open",
        "lines": [{"id": "l1", "lineTotal": 2, "parts": [{"id": "l2", "lineTotal": 1, "parts": []}]}],
        "tags": ["a", "b"],
        "size": [1, "cm"],
        "device": {"beakId": "b"},
        "states": ["open"],
        "labels": ["open"],
        "payment": {"last_four": "4242", "bank": "b"},
        "totals": {"all": {"id": "l3", "lineTotal": 3, "parts": []}},
        "kind": 7,
        "endedAt": NOW,
        "remark": "x",
        "version": 1,
    }


def test_a_field_that_was_added_later_takes_its_default() -> None:
    assert entity_of(Order, {"_id": "o1", "key": "hash"}) == Order("o1", "hash")


def test_a_missing_field_without_default_is_an_error() -> None:
    with pytest.raises(TypeError, match="key_hash"):
        entity_of(Order, {"_id": "o1"})


@pytest.mark.parametrize("hint", [State | Line, tuple[int, State], list[State | str]])
def test_a_type_that_a_stored_value_does_not_identify_is_rejected(hint: Any) -> None:
    kind = dataclass(type("Ambiguous", (), {"__annotations__": {"id": str, "value": hint}}))
    with pytest.raises(TypeError, match=r"Ambiguous\.value: a value of .* can't be mapped"):
        document_of(kind("x", State.OPEN))


def test_a_store_guards_replaces_and_deletes_with_the_version(harness: InboxHarness) -> None:
    orders, work, order = Orders(harness.database), harness.work(), replace(FULL, version=3)
    orders.add(order, work)
    orders.save(order, work)
    orders.remove(order, work)
    inserted, replaced, deleted = work.writes
    assert isinstance(inserted, Insert)
    assert isinstance(replaced, Replace)
    assert isinstance(deleted, Delete)
    assert (inserted.document, inserted.taken) == (document_of(order), OrderTaken)
    assert (replaced.version, replaced.document["version"]) == (3, 4)
    assert (deleted.id, deleted.version) == ("o1", 3)


async def test_a_store_refuses_an_unknown_id(harness: InboxHarness) -> None:
    assert await Orders(harness.database).find("unknown") is None
    with pytest.raises(OrderNotFound):
        await Orders(harness.database).get("unknown")
