"""Schedule of sweeps and comparisons, shared by all instances."""

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


def keep_schedule(kind: Scheduled) -> KeepStripeSchedule:
    return KeepStripeSchedule(key=SCHEDULE, kind=kind)


async def delayed(shop: Shop) -> list[tuple[str, Any]]:
    """Kind and time of the delayed schedule commands."""
    return [
        (command.kind, at) for at, command in await shop.harness.delayed() if isinstance(command, KeepStripeSchedule)
    ]


def test_every_start_publishes_a_command_for_each_kind(shop: Shop) -> None:
    assert [each.kind for each in shop.harness.published_at_start if isinstance(each, KeepStripeSchedule)] == list(
        SCHEDULED
    )


async def test_several_starts_leave_one_command_for_the_next_time(shop: Shop, open_shop: Callable[..., Any]) -> None:
    shop.harness.now = shop.harness.now.replace(microsecond=0)
    await shop.harness.deliver(keep_schedule("sweep"))
    other = await open_shop()
    other.harness.now = shop.harness.now + timedelta(minutes=5)
    for harness in (shop.harness, other.harness):
        await harness.deliver(keep_schedule("sweep"))
    [(kind, at)] = await delayed(shop)
    assert kind == "sweep"
    assert at - shop.harness.now == timedelta(minutes=15)
    assert await shop.count("stripe_runs") == 0


@pytest.mark.parametrize(
    ("kind", "period", "command"),
    [
        ("sweep", timedelta(minutes=15), SweepStripeEvents()),
        ("verify_lately", timedelta(hours=1), ReconcileSubscriptions(repair=False, changed_within_hours=2)),
        ("verify", timedelta(hours=168), ReconcileSubscriptions(repair=False)),
    ],
)
async def test_a_due_run_begins_once_and_is_scheduled_again(
    shop: Shop, kind: Scheduled, period: timedelta, command: Any
) -> None:
    await shop.harness.deliver(keep_schedule(kind))
    [(_, due)] = await delayed(shop)
    # The clock of the handling instance may be behind.
    due_command = keep_schedule(kind).model_copy(update={"due": due})
    for _ in range(2):
        await shop.harness.deliver(due_command, caller=SERVICE)
    assert [each for each in shop.harness.published if isinstance(each, type(command))] == [command]
    assert sorted(at for _, at in await delayed(shop)) == [due, due + period]
    await shop.harness.deliver(command, caller=SERVICE)
    [run] = (await shop.harness.deliver(ListStripeRuns()))["runs"]
    assert (run["kind"], run["scheduled"]) == (kind, True)


async def test_a_kind_with_period_zero_is_not_scheduled(open_shop: Callable[..., Any]) -> None:
    shop = await open_shop(stripe_sweep_minutes=0)
    await shop.harness.deliver(keep_schedule("sweep"))
    assert await delayed(shop) == []


async def test_a_shorter_period_takes_effect_at_once(shop: Shop, open_shop: Callable[..., Any]) -> None:
    shop.harness.now = shop.harness.now.replace(microsecond=0)
    await shop.harness.deliver(keep_schedule("sweep"))
    other = await open_shop(stripe_sweep_minutes=1)
    other.harness.now = shop.harness.now
    await other.harness.deliver(keep_schedule("sweep"))
    assert min(at for _, at in await delayed(shop)) - shop.harness.now == timedelta(minutes=1)
