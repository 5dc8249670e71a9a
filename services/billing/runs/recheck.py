"""Stage that checks suspected differences again, orders their repair if requested, and checks the repairs."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.billing.runs.comparison import compare, repair_command
from services.billing.runs.models import DIFFERENCES, Difference, Drift, KnownDrift, Run
from services.billing.runs.steps import Step, StepResult, map_until_timeout

FIRST_PAUSE: Final = timedelta(seconds=5)
"""Time in which the webhook of a change that happened during the comparison arrives."""
PAUSES: Final = (FIRST_PAUSE, *(timedelta(seconds=seconds) for seconds in (2, 5, 15, 30, 60, 120)))
"""Pauses before the rounds of checks; the later ones give repairs time, which may wait for auth or for Stripe."""
PER_STEP: Final = 20


async def recheck(step: Step) -> StepResult:
    """Check a page of suspected and ordered differences, in rounds until none is left."""
    run, at = step.run, step.work.now
    page = await step.billing.differences.open(run.id, after=run.cursor, limit=PER_STEP)
    if not page and run.cursor is None:
        return _completed(run, step)
    if run.check_round == 0:
        return StepResult(run.continued(None, at=at, check_round=1), PAUSES[0])
    drifts = await map_until_timeout(
        page, lambda each: compare(each.subject, each.stripe_id, step.billing, step.stripe)
    )
    for difference, drift in zip(page, drifts, strict=False):
        run = await _advance(difference, drift, run, step)
    if len(drifts) == PER_STEP or len(drifts) < len(page):
        return StepResult(run.continued(page[len(drifts) - 1].id, at=at, check_round=run.check_round))
    if not run.repair or run.check_round == len(PAUSES):
        return _completed(run, step)
    # The next round finds out whether a repair was ordered, since the changes of this step are not stored yet.
    return StepResult(run.continued(None, at=at, check_round=run.check_round + 1), PAUSES[run.check_round])


async def _advance(difference: Difference, drift: Drift | None, run: Run, step: Step) -> Run:
    """Record the check of a difference and order its repair if due; returns the run with the outcome counted."""
    billing, work = step.billing, step.work
    known = await billing.known_drift.find(difference.name)
    if drift is None:
        if known is not None:
            billing.known_drift.remove(known, work)
        if difference.state == "suspected":
            billing.differences.remove(difference, work)
            return run
        billing.differences.save(difference.repaired(), work)
        return run.counted(repaired=1)
    if run.repair and drift.repairable and run.check_round < len(PAUSES):
        if difference.state == "suspected":
            work.publish(repair_command(drift))
            billing.differences.save(difference.checked(drift, state="ordered"), work)
            return run.counted(ordered=1)
        return run
    billing.differences.save(difference.checked(drift, state="found"), work)
    if known is None:
        billing.known_drift.add(KnownDrift.of(drift, at=work.now), work)
    else:
        billing.known_drift.save(known.seen(drift, at=work.now), work)
    return run.counted(**{DIFFERENCES: 1})


def _completed(run: Run, step: Step) -> StepResult:
    return StepResult(run.counted(**{DIFFERENCES: 0}).stage_completed(at=step.work.now))
