"""Does it still differ? What a comparison suspects is read again, repaired if that is wanted, and read once more."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.billing.runs.comparison import examine, repair_of
from services.billing.runs.models import DIFFERENCES, Difference, Drift, Run, Standing
from services.billing.runs.steps import Done, Step
from services.billing.stripe_api.lists import as_far

SECOND_LOOK: Final = timedelta(seconds=5)
"""What changed while it was compared has told us so by a webhook by then."""
PAUSES: Final = (SECOND_LOOK, *(timedelta(seconds=seconds) for seconds in (2, 5, 15, 30, 60, 120)))
"""Before each look; those after the second one are for repairs, which may wait for auth, or for Stripe."""
AT_ONCE: Final = 20


async def looks(step: Step) -> Done:
    """Look again at what is suspected, and at what was ordered to be repaired, until nothing of that is left."""
    run, at = step.run, step.work.now
    page = await step.billing.differences.open(run.id, after=run.cursor, limit=AT_ONCE)
    if not page and run.cursor is None:
        return Done(_over(run).past_stage(at=at))
    if run.look == 0:
        return Done(run.on(None, at=at, look=1), PAUSES[0])
    drifts = await as_far(page, lambda each: examine(each.subject, each.stripe_id, step.billing, step.stripe))
    for difference, drift in zip(page, drifts, strict=False):
        run = await _settle(difference, drift, run, step)
    if len(drifts) == AT_ONCE or len(drifts) < len(page):
        return Done(run.on(page[len(drifts) - 1].id, at=at, look=run.look))
    if not run.repair or run.look == len(PAUSES):
        return Done(_over(run).past_stage(at=at))
    # Whether something was ordered is asked at the next look: what this step orders is not stored yet.
    return Done(run.on(None, at=at, look=run.look + 1), PAUSES[run.look])


async def _settle(difference: Difference, drift: Drift | None, run: Run, step: Step) -> Run:
    """Bring one difference further; returns the run with what came of it counted."""
    billing, work = step.billing, step.work
    if drift is None:
        await _forget(difference, step)
        if difference.state == "suspected":
            billing.differences.remove(difference, work)
            return run
        billing.differences.save(difference.seen(_as_known(difference), state="repaired"), work)
        return run.counted(repaired=1)
    if run.repair and drift.repairable and run.look < len(PAUSES):
        if difference.state == "suspected":
            work.publish(repair_of(drift))
            billing.differences.save(difference.seen(drift, state="ordered"), work)
            return run.counted(ordered=1)
        return run
    billing.differences.save(difference.seen(drift, state="found"), work)
    standing = await billing.standings.find(drift.name)
    if standing is None:
        billing.standings.add(Standing.of(drift, at=work.now), work)
    else:
        billing.standings.save(standing.seen(drift, at=work.now), work)
    return run.counted(**{DIFFERENCES: 1})


async def _forget(difference: Difference, step: Step) -> None:
    standing = await step.billing.standings.find(_as_known(difference).name)
    if standing is not None:
        step.billing.standings.remove(standing, step.work)


def _as_known(difference: Difference) -> Drift:
    return Drift(
        subject=difference.subject,
        stripe_id=difference.stripe_id,
        our_id=difference.our_id,
        kind=difference.kind,
        different=difference.different,
    )


def _over(run: Run) -> Run:
    return run.counted(**{DIFFERENCES: 0})
