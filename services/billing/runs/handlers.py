"""How does a run over a Stripe account begin, go on, stop and go on again?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from services.billing.context import Billing
from services.billing.runs import account_import, event_replay, recheck, verification
from services.billing.runs.models import DIFFERENCES, Run
from services.billing.runs.models import Stage as StageName
from services.billing.runs.steps import Stage, Step
from services.billing.runs.store import NextRun
from services.billing.stripe_api.reschedule import put_off
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import iso_milliseconds
from shared.messages.billing.errors import StripeRunUnderWay, StripeUnavailable
from shared.messages.billing.runs import (
    SCHEDULE,
    ContinueStripeRun,
    GetStripeRun,
    ImportStripeAccount,
    KeepStripeSchedule,
    Kind,
    ListStripeDifferences,
    ListStripeRuns,
    ReconcileSubscriptions,
    ReplayStripeEvents,
    ResumeStripeRun,
    Scheduled,
    StopStripeRun,
    StripeDifferencesView,
    StripeRunsView,
    StripeRunView,
    SweepStripeEvents,
)
from shared.telemetry import log

STAGES: Final[Mapping[StageName, Stage]] = {
    "known": verification.known,
    "changed": verification.changed,
    "customers": verification.customers,
    "subscriptions": verification.subscriptions,
    "trials": verification.trials,
    "payments": verification.payments,
    "disputes": verification.disputes,
    "looks": recheck.looks,
    "failed_deliveries": event_replay.failed_deliveries,
    "chosen_events": event_replay.chosen_events,
    "take_customers": account_import.take_customers,
    "take_subscriptions": account_import.take_subscriptions,
    "take_payments": account_import.take_payments,
    "take_disputes": account_import.take_disputes,
    "duplicates": account_import.duplicates,
}


async def reconcile_subscriptions(command: ReconcileSubscriptions, work: Work, billing: Billing) -> StripeRunView:
    """Begin to compare our records with Stripe, and to repair them if that is wanted.

    Raises:
        StripeRunUnderWay: such a run has not come to its end.
    """
    if command.changed_within_hours is not None:
        kind: Kind = "verify_lately"
        return await _begun(kind, work, billing, repair=command.repair, hours=command.changed_within_hours)
    return await _begun("reconcile" if command.repair else "verify", work, billing, repair=command.repair)


async def sweep_stripe_events(command: SweepStripeEvents, work: Work, billing: Billing) -> StripeRunView:
    """Begin to fetch the events that Stripe could not deliver.

    Raises:
        StripeRunUnderWay: such a run has not come to its end.
    """
    return await _begun("sweep", work, billing, days=command.days)


async def replay_stripe_events(command: ReplayStripeEvents, work: Work, billing: Billing) -> StripeRunView:
    """Begin to look at events again.

    Raises:
        StripeRunUnderWay: such a run has not come to its end.
    """
    return await _begun(
        "replay",
        work,
        billing,
        event_ids=list(command.event_ids),
        types=list(command.types),
        since=command.since,
        until=command.until,
        kept=command.kept,
    )


async def import_stripe_account(_command: ImportStripeAccount, work: Work, billing: Billing) -> StripeRunView:
    """Begin to take over what the account has by now.

    Raises:
        StripeRunUnderWay: such a run has not come to its end.
    """
    # Before anything is read: whoever comes across an object first then, a webhook too, knows it for no news.
    await billing.takeover.extend(work.now, work)
    return await _begun("import", work, billing, repair=True)


async def continue_stripe_run(command: ContinueStripeRun, work: Work, billing: Billing) -> None:
    """Do the next step of a run, unless it was done or the run has stopped; later, if Stripe can't be asked now."""
    run = await billing.runs.get(command.run_id)
    if not run.expects(command.step):
        return
    step = Step(run, work, billing, billing.stripe.behind())
    try:
        done = await STAGES[run.stage](step)
    except StripeUnavailable:
        billing.runs.save(run.put_off(at=work.now), work)
        put_off(command, work)
        return
    billing.runs.save(done.run, work)
    if done.run.under_way:
        _go_on(done.run, work, pause=done.pause)
    elif done.run.counts.get(DIFFERENCES):
        log.error("records differ from stripe", run=run.id, kind=run.kind, differences=done.run.counts[DIFFERENCES])


async def stop_stripe_run(command: StopStripeRun, work: Work, billing: Billing) -> StripeRunView:
    """Let a run stop; a step under way ends without effect.

    Raises:
        StripeRunNotFound: there is none of this id.
    """
    run = await billing.runs.get(command.run_id)
    work.annotate(resource_id=run.id)
    stopped = run.stopped(at=work.now)
    if stopped != run:
        billing.runs.save(stopped, work)
    return stopped.view()


async def resume_stripe_run(command: ResumeStripeRun, work: Work, billing: Billing) -> StripeRunView:
    """Let a run go on where it stopped; one that is under way is nudged, in case its message was lost.

    Raises:
        StripeRunNotFound: there is none of this id.
        StripeRunUnderWay: another one of its kind is under way.
    """
    run = await billing.runs.get(command.run_id)
    work.annotate(resource_id=run.id)
    other = await billing.runs.find_under_way(run.kind)
    if other is not None and other.id != run.id:
        raise StripeRunUnderWay(run_id=other.id)
    resumed = run.gone_on(at=work.now)
    if resumed != run:
        billing.runs.save(resumed, work)
        _go_on(resumed, work)
    return resumed.view()


async def get_stripe_run(query: GetStripeRun, _work: Work, billing: Billing) -> StripeRunView:
    """How far a run is.

    Raises:
        StripeRunNotFound: there is none of this id.
    """
    return (await billing.runs.get(query.run_id)).view()


async def list_stripe_runs(query: ListStripeRuns, _work: Work, billing: Billing) -> StripeRunsView:
    """The latest runs."""
    return StripeRunsView(runs=tuple(run.part() for run in await billing.runs.latest(query.limit)))


async def list_stripe_differences(query: ListStripeDifferences, work: Work, billing: Billing) -> StripeDifferencesView:
    """What a run has found, a page at a time.

    Raises:
        StripeRunNotFound: there is none of this id.
    """
    run = await billing.runs.get(query.run_id)
    work.annotate(resource_id=run.id)
    found = await billing.differences.page(run.id, after=query.cursor, limit=query.limit + 1)
    page = found[: query.limit]
    return StripeDifferencesView(
        differences=tuple(each.view() for each in page),
        next_cursor=page[-1].id if len(found) > len(page) else None,
    )


async def _begun(kind: Kind, work: Work, billing: Billing, *, repair: bool = False, **asked: Any) -> StripeRunView:
    """Begin a run.

    Raises:
        StripeRunUnderWay: one of its kind has not come to its end.
    """
    other = await billing.runs.find_under_way(kind)
    if other is not None and not other.stalled(work.now):
        raise StripeRunUnderWay(run_id=other.id)
    if other is not None:
        billing.runs.save(other.given_up(at=work.now), work)
    # People come through the gateway; what a service orders was set off by its clock.
    scheduled = work.caller.kind == "service"
    run = Run.begin(work.new_id("striperun"), kind, repair=repair, at=work.now, scheduled=scheduled, **asked)
    billing.runs.add(run, work)
    work.annotate(resource_id=run.id)
    _go_on(run, work)
    return run.view()


def _go_on(run: Run, work: Work, *, pause: timedelta | None = None) -> None:
    """Order the next step, once whoever orders it and however often."""
    work.publish(
        ContinueStripeRun(key=run.id, run_id=run.id, step=run.step),
        at=work.now + pause if pause else None,
        id=derived_message_id("stripe-run", run.id, str(run.step), str(run.resumed)),
    )


TWICE: Final = 2
"""A comparison of what Stripe told of lately goes back to before the one before it."""


async def keep_stripe_schedule(command: KeepStripeSchedule, work: Work, billing: Billing) -> None:
    """Begin the run that is due, and leave an order for the next time; those of a start end in the same one."""
    period = billing.periods.get(command.kind)
    if period is None:
        return
    at = work.now if command.due is None else max(work.now, command.due)
    stored = await billing.schedule.find(command.kind)
    # A period that was made shorter takes effect at once. The first run is due after one period, too.
    next_at = at + period if stored is None else min(stored.next_at, at + period)
    if stored is None:
        billing.schedule.add(NextRun(id=command.kind, next_at=next_at), work)
    else:
        if at >= stored.next_at:
            _order(command.kind, work, billing)
            next_at = at + period
        if next_at != stored.next_at:
            billing.schedule.save(replace(stored, next_at=next_at), work)
    work.publish(
        KeepStripeSchedule(key=SCHEDULE, kind=command.kind, due=next_at),
        at=next_at,
        id=derived_message_id("stripe-schedule", command.kind, iso_milliseconds(next_at)),
    )


def _order(kind: Scheduled, work: Work, billing: Billing) -> None:
    """Order a run, as an operator does; it is refused while another of its kind is under way."""
    match kind:
        case "sweep":
            work.publish(SweepStripeEvents(key=kind))
        case "verify_lately":
            hours = TWICE * int(billing.periods[kind].total_seconds()) // 3600
            work.publish(ReconcileSubscriptions(key=kind, repair=False, changed_within_hours=hours))
        case "verify":
            work.publish(ReconcileSubscriptions(key=kind, repair=False))
