"""Rules of changes of plan, without Stripe."""

from typing import Any

import pytest

from services.billing.plan_changes.rules import is_downgrade
from services.billing.stripe_api.models import ItemTerms


def terms(amount: int | None, interval: str = "month", count: int = 1, *, metered: bool = False) -> ItemTerms:
    return ItemTerms(interval=interval, interval_count=count, unit_amount=amount, metered=metered)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # A lower or higher amount for the same interval, and equal amounts.
        ((terms(500), 1), (terms(499), 1), True),
        ((terms(500), 1), (terms(501), 1), False),
        ((terms(500), 1), (terms(500), 1), False),
        ((terms(500), 3), (terms(500), 2), True),
        ((terms(500), 2), (terms(300), 4), False),
        ((terms(500), 4), (terms(900), 2), True),
        ((terms(500), 1), (terms(0), 1), True),
        ((terms(0), 1), (terms(500), 1), False),
        # The interval decides first, whatever the amounts are.
        ((terms(6000, "year"), 1), (terms(9000), 1), True),
        ((terms(500), 1), (terms(100, "year"), 1), False),
        ((terms(1500, "month", 3), 1), (terms(600), 1), True),
        ((terms(500, "week"), 1), (terms(100, "month"), 1), False),
        # The same length, in other units.
        ((terms(700, "day", 7), 1), (terms(600, "week"), 1), True),
        # Amounts that are not known in advance.
        ((terms(None), 1), (terms(500), 1), False),
        ((terms(500), 1), (terms(None), 1), False),
        ((terms(5, metered=True), None), (terms(1, metered=True), None), False),
    ],
)
def test_a_shorter_interval_or_a_lower_amount_is_a_downgrade(old: Any, new: Any, *, expected: bool) -> None:
    assert is_downgrade(old, new) is expected
