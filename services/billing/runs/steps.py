"""What is a step of a run? A page is read, something is noted and ordered, and the run stands a little further on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.billing.context import Billing
from services.billing.runs.models import KEPT, Difference, Drift, Run
from services.billing.stripe_api.account import Stripe
from shared.bus.work import Work

AT_ONCE: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step is done with.

    Attributes:
        run: as it stands before the step.
        work: what the step fills.
        billing: where.
        stripe: the account, at the pace of work that has time.
    """

    run: Run
    work: Work
    billing: Billing
    stripe: Stripe


@dataclass(frozen=True, slots=True)
class Done:
    """Where a run stands after a step.

    Attributes:
        run: as it is then.
        pause: how long the next step waits.
    """

    run: Run
    pause: timedelta = AT_ONCE


Stage = Callable[[Step], Awaitable[Done]]


async def suspect(drifts: Iterable[Drift], step: Step) -> None:
    """Note what differs at first sight, to be looked at again; what the run knows already is noted once."""
    wanted = {
        difference.id: difference
        for drift in drifts
        if (difference := Difference.of(step.run.id, drift, state="suspected", expires_at=step.run.started_at + KEPT))
    }
    known = await step.billing.differences.known(wanted)
    for difference_id, difference in wanted.items():
        if difference_id not in known:
            step.billing.differences.add(difference, step.work)


async def report(drifts: Iterable[Drift], step: Step) -> int:
    """Note what is for somebody to decide; returns how many of them were not known to the run."""
    wanted = [
        Difference.of(step.run.id, drift, state="found", expires_at=step.run.started_at + KEPT) for drift in drifts
    ]
    known = await step.billing.differences.known(each.id for each in wanted)
    new = [each for each in wanted if each.id not in known]
    for difference in new:
        step.billing.differences.add(difference, step.work)
    return len(new)
