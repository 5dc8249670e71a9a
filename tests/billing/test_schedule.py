"""The clock begins sweeps and comparisons, one at a time, however many instances there are and how often they start."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from shared.messages import SERVICE
from shared.messages.billing.runs import (
    SCHEDULE,
    SCHEDULED,
    KeepStripeSchedule,
    ListStripeRuns,
    ReconcileSubscriptions,
    Scheduled,
    SweepStripeEvents,
)
from tests.billing.conftest import Shop


def look(kind: Scheduled) -> KeepStripeSchedule:
    return KeepStripeSchedule(key=SCHEDULE, kind=kind)


async def waiting(shop: Shop) -> list[tuple[str, Any]]:
    """The looks that wait for their time: kind and time."""
    return [(look.kind, at) for at, look in await shop.harness.delayed() if isinstance(look, KeepStripeSchedule)]


def test_every_start_looks_at_each_kind(shop: Shop) -> None:
    assert [each.kind for each in shop.harness.published_at_start if isinstance(each, KeepStripeSchedule)] == list(
        SCHEDULED
    )


async def test_any_number_of_starts_leave_one_look_for_the_same_time(shop: Shop, open_shop: Callable[..., Any]) -> None:
    shop.harness.now = shop.harness.now.replace(microsecond=0)
    await shop.harness.deliver(look("sweep"))
    other = await open_shop()
    other.harness.now = shop.harness.now + timedelta(minutes=5)
    for harness in (shop.harness, other.harness):
        await harness.deliver(look("sweep"))
    [(kind, at)] = await waiting(shop)
    assert kind == "sweep"
    assert at - shop.harness.now == timedelta(minutes=15)
    assert await shop.count("stripe_runs") == 0


@pytest.mark.parametrize(
    ("kind", "period", "order"),
    [
        ("sweep", timedelta(minutes=15), SweepStripeEvents()),
        ("verify_lately", timedelta(hours=1), ReconcileSubscriptions(repair=False, changed_within_hours=2)),
        ("verify", timedelta(hours=168), ReconcileSubscriptions(repair=False)),
    ],
)
async def test_what_is_due_begins_once_and_comes_again(
    shop: Shop, kind: Scheduled, period: timedelta, order: Any
) -> None:
    await shop.harness.deliver(look(kind))
    [(_, due)] = await waiting(shop)
    # The clock of who handles it may be behind.
    again = look(kind).model_copy(update={"due": due})
    for _ in range(2):
        await shop.harness.deliver(again, caller=SERVICE)
    assert [each for each in shop.harness.published if isinstance(each, type(order))] == [order]
    assert sorted(at for _, at in await waiting(shop)) == [due, due + period]
    await shop.harness.deliver(order, caller=SERVICE)
    [run] = (await shop.harness.deliver(ListStripeRuns()))["runs"]
    assert (run["kind"], run["scheduled"]) == (kind, True)


async def test_a_period_of_none_begins_nothing(open_shop: Callable[..., Any]) -> None:
    shop = await open_shop(stripe_sweep_minutes=0)
    await shop.harness.deliver(look("sweep"))
    assert await waiting(shop) == []


async def test_a_shorter_period_counts_at_once(shop: Shop, open_shop: Callable[..., Any]) -> None:
    shop.harness.now = shop.harness.now.replace(microsecond=0)
    await shop.harness.deliver(look("sweep"))
    hasty = await open_shop(stripe_sweep_minutes=1)
    hasty.harness.now = shop.harness.now
    await hasty.harness.deliver(look("sweep"))
    assert min(at for _, at in await waiting(shop)) - shop.harness.now == timedelta(minutes=1)
