"""Handlers for Stripe runs: begin, continue, stop and resume them, list what they found, and keep their schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from services.billing.catalog.sync import order_catalog_sync
from services.billing.context import Billing
from services.billing.runs import account_import, event_replay, progress, verification
from services.billing.runs.models import DIFFERENCES, Run
from services.billing.runs.models import Stage as StageName
from services.billing.runs.recheck import recheck
from services.billing.runs.steps import Stage, Step
from services.billing.runs.store import NextRun
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.reschedule import reschedule
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import iso_milliseconds
from shared.messages.billing.errors import StripeRunUnderWay, StripeUnavailable
from shared.messages.billing.runs import (
    SCHEDULE,
    ContinueStripeRun,
    GetStripeRun,
    GetStripeRunProgress,
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
    StripeRunProgressView,
    StripeRunsView,
    StripeRunView,
    SweepStripeEvents,
)
from shared.telemetry import log

STAGES: Final[Mapping[StageName, Stage]] = {
    "totals": progress.count_objects,
    "known": verification.known_drift,
    "changed": verification.recent_events,
    "customers": verification.customers,
    "mappings": verification.mappings,
    "subscriptions": verification.subscriptions,
    "trials": verification.trials,
    "invoice_payments": verification.invoice_payments,
    "payments": verification.payments,
    "disputes": verification.disputes,
    "products": verification.products,
    "prices": verification.prices,
    "looks": recheck,
    "failed_deliveries": event_replay.failed_deliveries,
    "chosen_events": event_replay.chosen_events,
    "take_products": account_import.take_products,
    "take_prices": account_import.take_prices,
    "take_customers": account_import.take_customers,
    "take_subscriptions": account_import.take_subscriptions,
    "take_invoice_payments": account_import.take_invoice_payments,
    "take_payments": account_import.take_payments,
    "take_disputes": account_import.take_disputes,
    "duplicates": account_import.duplicates,
}
VERIFIED_PERIODS: Final = 2
"""Periods of ``verify_lately`` that such a run covers, so that it overlaps with the run before."""


async def reconcile_subscriptions(command: ReconcileSubscriptions, work: Work, billing: Billing) -> StripeRunView:
    """Begin to compare our records with Stripe and, if requested, to repair them.

    Raises StripeRunUnderWay if a run of this kind is under way.
    """
    if command.changed_within_hours is not None:
        kind: Kind = "verify_lately"
        return await _begin(kind, work, billing, repair=command.repair, hours=command.changed_within_hours)
    return await _begin("reconcile" if command.repair else "verify", work, billing, repair=command.repair)


async def sweep_stripe_events(command: SweepStripeEvents, work: Work, billing: Billing) -> StripeRunView:
    """Begin to fetch the events that Stripe could not deliver; raises StripeRunUnderWay if a sweep is under way."""
    return await _begin("sweep", work, billing, days=command.days)


async def replay_stripe_events(command: ReplayStripeEvents, work: Work, billing: Billing) -> StripeRunView:
    """Begin to handle events again; raises StripeRunUnderWay if a replay is under way."""
    return await _begin(
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
    """Begin to take over all that is in Stripe now; raises StripeRunUnderWay if an import is under way."""
    # Before anything is read: from now on every handler that first sees an object, also after a webhook, treats it as
    # taken over.
    await billing.takeover.extend(work.now, work)
    return await _begin("import", work, billing, repair=True)


async def continue_stripe_run(command: ContinueStripeRun, work: Work, billing: Billing) -> None:
    """Do the next step of a run, unless it was done before or the run has stopped; stop it if Stripe refuses a call."""
    run = await billing.runs.get(command.run_id)
    if not run.expects(command.step):
        return
    run = run.begun_again()
    step = Step(run, work, billing, billing.stripe.low_priority())
    try:
        result = await STAGES[run.stage](step)
    except StripeUnavailable:
        billing.runs.save(run.waiting(at=work.now), work)
        reschedule(command, work)
        return
    except StripeRefused as refused:
        # An operator may resume it once the cause is removed.
        refused.report(run=run.id)
        billing.runs.save(run.stopped(at=work.now), work)
        return
    billing.runs.save(result.run, work)
    if result.run.under_way:
        _order_next_step(result.run, work, pause=result.pause)
    elif result.run.counts.get(DIFFERENCES):
        log.error("records differ from stripe", run=run.id, kind=run.kind, differences=result.run.counts[DIFFERENCES])


async def stop_stripe_run(command: StopStripeRun, work: Work, billing: Billing) -> StripeRunView:
    """Stop a run; a step that is being done has no effect. Raises StripeRunNotFound."""
    run = await billing.runs.get(command.run_id)
    work.annotate(resource_id=run.id)
    stopped = run.stopped(at=work.now)
    if stopped != run:
        billing.runs.save(stopped, work)
    return stopped.view()


async def resume_stripe_run(command: ResumeStripeRun, work: Work, billing: Billing) -> StripeRunView:
    """Continue a run where it stopped; for a run that is under way order its step again, in case its message was lost.

    Raises:
        StripeRunNotFound: there is no such run.
        StripeRunUnderWay: another run of this kind is under way.
    """
    run = await billing.runs.get(command.run_id)
    work.annotate(resource_id=run.id)
    other = await billing.runs.find_under_way(run.kind)
    if other is not None and other.id != run.id:
        raise StripeRunUnderWay(run_id=other.id)
    resumed = run.resumed(at=work.now)
    if resumed != run:
        billing.runs.save(resumed, work)
        _order_next_step(resumed, work)
    return resumed.view()


async def get_stripe_run(query: GetStripeRun, _work: Work, billing: Billing) -> StripeRunView:
    """A run and its progress; raises StripeRunNotFound."""
    return (await billing.runs.get(query.run_id)).view()


async def get_stripe_run_progress(query: GetStripeRunProgress, _work: Work, billing: Billing) -> StripeRunProgressView:
    """A run and its progress; raises StripeRunNotFound."""
    return progress.progress_view(await billing.runs.get(query.run_id))


async def list_stripe_runs(query: ListStripeRuns, _work: Work, billing: Billing) -> StripeRunsView:
    """The latest runs, newest first."""
    return StripeRunsView(runs=tuple(run.summary() for run in await billing.runs.latest(query.limit)))


async def list_stripe_differences(query: ListStripeDifferences, work: Work, billing: Billing) -> StripeDifferencesView:
    """A page of the differences that a run found; raises StripeRunNotFound."""
    run = await billing.runs.get(query.run_id)
    work.annotate(resource_id=run.id)
    found = await billing.differences.page(run.id, after=query.cursor, limit=query.limit + 1)
    page = found[: query.limit]
    return StripeDifferencesView(
        differences=tuple(each.view() for each in page),
        next_cursor=page[-1].id if len(found) > len(page) else None,
    )


async def keep_stripe_schedule(command: KeepStripeSchedule, work: Work, billing: Billing) -> None:
    """Begin the scheduled run if it is due, and publish this command for the next time.

    Every instance publishes this command when it starts. The commands for one time have one message ID, so they
    converge to one.
    """
    if command.kind == "sweep":
        await order_catalog_sync(work, billing)
    period = billing.periods.get(command.kind)
    if period is None:
        return
    at = work.now if command.due is None else max(work.now, command.due)
    stored = await billing.schedule.find(command.kind)
    # A period that was made shorter takes effect at once. The very first run is due after one period.
    next_at = at + period if stored is None else min(stored.next_at, at + period)
    if stored is None:
        billing.schedule.add(NextRun(id=command.kind, next_at=next_at), work)
    else:
        if at >= stored.next_at:
            _begin_scheduled(command.kind, work, billing)
            next_at = at + period
        if next_at != stored.next_at:
            billing.schedule.save(replace(stored, next_at=next_at), work)
    work.publish(
        KeepStripeSchedule(key=SCHEDULE, kind=command.kind, due=next_at),
        at=next_at,
        id=derived_message_id("stripe-schedule", command.kind, iso_milliseconds(next_at)),
    )


def _begin_scheduled(kind: Scheduled, work: Work, billing: Billing) -> None:
    """Order a run, as an operator does; it is refused while another run of its kind is under way."""
    match kind:
        case "sweep":
            work.publish(SweepStripeEvents(key=kind))
        case "verify_lately":
            hours = VERIFIED_PERIODS * int(billing.periods[kind].total_seconds()) // 3600
            work.publish(ReconcileSubscriptions(key=kind, repair=False, changed_within_hours=hours))
        case "verify":
            work.publish(ReconcileSubscriptions(key=kind, repair=False))


async def _begin(kind: Kind, work: Work, billing: Billing, *, repair: bool = False, **parameters: Any) -> StripeRunView:
    """Begin a run and order its first step; raises StripeRunUnderWay if a run of this kind is under way."""
    other = await billing.runs.find_under_way(kind)
    if other is not None and not other.stalled(work.now):
        raise StripeRunUnderWay(run_id=other.id)
    if other is not None:
        billing.runs.save(other.given_up(at=work.now), work)
    # Operators' commands come through the gateway; a command from a service was published by the schedule.
    scheduled = work.caller.kind == "service"
    run = Run.begin(work.new_id("striperun"), kind, repair=repair, at=work.now, scheduled=scheduled, **parameters)
    billing.runs.add(run, work)
    work.annotate(resource_id=run.id)
    _order_next_step(run, work)
    return run.view()


def _order_next_step(run: Run, work: Work, *, pause: timedelta | None = None) -> None:
    """Order the next step, once, however often it is ordered."""
    work.publish(
        ContinueStripeRun(key=run.id, run_id=run.id, step=run.step),
        at=work.now + pause if pause else None,
        id=derived_message_id("stripe-run", run.id, str(run.step), str(run.times_resumed)),
    )
