"""Steps of Stripe runs: each reads a page, notes differences, publishes commands, and advances the run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from services.billing.context import Billing
from services.billing.runs.models import Difference, Drift, Run
from services.billing.stripe_api.account import Stripe
from shared.bus.work import Work

Entry = TypeVar("Entry")
Result = TypeVar("Result")
STEP_SECONDS: Final = 15.0
"""Time after which a step ends, even in the middle of its page: a handler may take 60 s, and a call to Stripe 20 s."""
CONCURRENCY: Final = 8
NO_PAUSE: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Step:
    """The input of a step: the run before it, the work of the message, and the account with low-priority calls."""

    run: Run
    work: Work
    billing: Billing
    stripe: Stripe


@dataclass(frozen=True, slots=True)
class StepResult:
    """The run after a step, and the pause until the next step."""

    run: Run
    pause: timedelta = NO_PAUSE


Stage = Callable[[Step], Awaitable[StepResult]]
"""Does one step of a stage."""


async def add_suspected(drifts: Iterable[Drift], step: Step) -> None:
    """Store drifts of a first comparison, to be checked again; drifts that the run knows already are skipped."""
    differences = {
        difference.id: difference
        for drift in drifts
        if (difference := Difference.of(step.run, drift, state="suspected"))
    }
    known = await step.billing.differences.known(differences)
    for difference_id, difference in differences.items():
        if difference_id not in known:
            step.billing.differences.add(difference, step.work)


async def add_found(drifts: Iterable[Drift], step: Step) -> int:
    """Store drifts that only a person can resolve; returns how many the run did not know yet."""
    differences = [Difference.of(step.run, drift, state="found") for drift in drifts]
    known = await step.billing.differences.known(each.id for each in differences)
    new = [each for each in differences if each.id not in known]
    for difference in new:
        step.billing.differences.add(difference, step.work)
    return len(new)


async def map_until_timeout(entries: Sequence[Entry], function: Callable[[Entry], Awaitable[Result]]) -> list[Result]:
    """Apply a function to entries, ``CONCURRENCY`` at a time, until ``STEP_SECONDS`` are over.

    Returns:
        The results in the order of the entries: of all entries, or of those before the timeout, one at least.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + STEP_SECONDS
    results: list[Result] = []
    while len(results) < len(entries) and (not results or loop.time() < deadline):
        chunk = entries[len(results) : len(results) + CONCURRENCY]
        # A failure must not cancel the others: a cancelled read costs MongoDB's driver the connection.
        for outcome in await asyncio.gather(*map(function, chunk), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
    return results
