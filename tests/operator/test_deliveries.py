import json

import pytest

from tests.operator.conftest import NestStub
from tests.operator.responses import SUPPRESSION

BY_DELIVERY = ("suppressions", "lift", "--delivery", "delivery_1", "--although-complained")


def test_suppressions_are_listed_with_filters(nest: NestStub) -> None:
    filters = ("--cause", "complaint", "--since", "2026-11-21", "--limit", "5")
    result = nest.run("suppressions", "list", *filters)
    assert result.exit_code == 0, result.output
    assert [line.split("\t") for line in result.output.splitlines()] == [
        ["SINCE", "CAUSE", "TEMPLATE", "REASON", "DELIVERY"],
        [SUPPRESSION["since"], "bounce", "welcome", "-", "delivery_1"],
    ]
    assert nest.calls == [
        ("list_suppressions", {"cause": "complaint", "since": "2026-11-21T00:00:00+00:00", "limit": 5})
    ]


def test_lifting_a_complaint_asks_for_confirmation(nest: NestStub) -> None:
    result = nest.run("suppressions", "lift", "ada@example.com", "--json")
    assert json.loads(result.stdout) == SUPPRESSION
    declined = nest.run(*BY_DELIVERY, stdin="n")
    assert declined.exit_code == 1
    assert "reported one of our mails as spam" in declined.stderr
    for yes in (["--yes"], []):
        assert nest.run(*BY_DELIVERY, *yes, stdin="y").exit_code == 0
    assert nest.calls == [
        ("lift_suppression", {"recipient": "ada@example.com", "although_complained": False}),
        ("lift_suppression", {"delivery_id": "delivery_1", "although_complained": True}),
        ("lift_suppression", {"delivery_id": "delivery_1", "although_complained": True}),
    ]


@pytest.mark.parametrize("words", [[], ["ada@example.com", "--delivery", "delivery_1"]])
def test_lift_requires_either_address_or_delivery(nest: NestStub, words: list[str]) -> None:
    assert nest.run("suppressions", "lift", *words).exit_code == 2
    assert nest.calls == []
