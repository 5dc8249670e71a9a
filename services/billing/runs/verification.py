"""Stages that compare all records with Stripe: Stripe's lists with our records, and our records with Stripe.

A drift is only suspected at first, since pages are read while both sides change; ``recheck.py`` checks it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final

from services.billing.runs.comparison import compare, compare_dispute, compare_payment, compare_subscription
from services.billing.runs.models import Drift
from services.billing.runs.steps import Stage, Step, StepResult, add_suspected, map_until_timeout
from services.billing.runs.store import MAX_UNLISTED
from services.billing.stripe_api.account import StripeList
from services.billing.stripe_api.calls import RESOURCE_MISSING, StripeRefused
from services.billing.stripe_api.parsing import Json, parse_dispute, parse_time
from shared.messages.billing.runs import Subject
from shared.telemetry import log

RECORDS_PER_STEP: Final = 50
KNOWN_PER_STEP: Final = 200
EVENTS_PER_STEP: Final = 10
"""Each event may lead to an object that is read on its own, and all objects of a page belong to one step."""
CompareEntry = Callable[[Json, Any, Step], Awaitable[Drift | None]]
"""Compares an entry of one of Stripe's lists with our record of it."""


async def known_drift(step: Step) -> StepResult:
    """Add all known drift to the suspected differences, whatever the scope of the run."""
    run, at = step.run, step.work.now
    known = await step.billing.known_drift.page(after=run.cursor, limit=KNOWN_PER_STEP)
    drifts = [Drift(subject=each.subject, stripe_id=each.stripe_id, our_id=None, kind=each.kind) for each in known]
    await add_suspected(drifts, step)
    if len(known) == KNOWN_PER_STEP:
        return StepResult(run.continued(known[-1].id, at=at))
    return StepResult(run.stage_completed(at=at))


def listed_stage(name: StripeList, subject: Subject, compare_entry: CompareEntry) -> Stage:
    """The stage that compares one of Stripe's lists with our records of the same period, in both directions."""

    async def stage(step: Step) -> StepResult:
        run, at = step.run, step.work.now
        records = step.billing.records.of_subject(subject)
        made_until, after = _parse_cursor(run.cursor)
        page = await step.stripe.list_page(name, after=after)
        stored = await records.of(entry["id"] for entry in page.entries)
        drifts = await map_until_timeout(
            page.entries, lambda entry: compare_entry(entry, stored.get(entry["id"]), step)
        )
        compared = page.entries[: len(drifts)]
        completed = len(compared) == len(page.entries) and not page.more
        unlisted = await records.unlisted(
            [entry["id"] for entry in page.entries],
            made_from=None if completed else parse_time(compared[-1]["created"]),
            made_until=made_until,
        )
        if len(unlisted) == MAX_UNLISTED:
            log.error("stripe lists almost none of our records, check the account", objects=name)
        missing = [
            Drift(subject=subject, stripe_id=stripe_id, our_id=our_id, kind="missing_there")
            for stripe_id, our_id in unlisted.items()
        ]
        await add_suspected([*filter(None, drifts), *missing], step)
        run = run.counted(**{name: len(compared)})
        return StepResult(run.stage_completed(at=at) if completed else run.continued(_cursor_of(compared[-1]), at=at))

    return stage


def records_stage(name: str, subject: Subject) -> Stage:
    """The stage that compares each of our records with Stripe, for objects that Stripe's lists show incompletely."""

    async def stage(step: Step) -> StepResult:
        run, at = step.run, step.work.now
        page = await step.billing.records.of_subject(subject).after(run.cursor, limit=RECORDS_PER_STEP)
        drifts = await map_until_timeout(page, lambda record: compare(subject, record[1], step.billing, step.stripe))
        await add_suspected(filter(None, drifts), step)
        run = run.counted(**{name: len(drifts)})
        if len(drifts) == len(page) < RECORDS_PER_STEP:
            return StepResult(run.stage_completed(at=at))
        return StepResult(run.continued(page[len(drifts) - 1][0], at=at))

    return stage


async def recent_events(step: Step) -> StepResult:
    """Compare the objects of Stripe's events since some hours before the run began."""
    run, at = step.run, step.work.now
    since = run.started_at - timedelta(hours=run.parameters["hours"])
    page = await step.stripe.events_page(
        after=run.cursor, limit=EVENTS_PER_STEP, created={"gte": int(since.timestamp())}
    )
    subjects = [subject for event in page.entries for subject in subjects_of(event)]
    trials = await step.billing.records.trials.of(stripe_id for kind, stripe_id in subjects if kind == "subscription")
    objects = [*dict.fromkeys([*subjects, *(("trial", stripe_id) for stripe_id in trials)])]
    # A cursor names an event, not an object, so all objects of a page belong to one step.
    drifts: list[Drift | None] = []
    while len(drifts) < len(objects):
        drifts += await map_until_timeout(
            objects[len(drifts) :], lambda each: compare(*each, step.billing, step.stripe)
        )
    await add_suspected(filter(None, drifts), step)
    run = run.counted(events=len(page.entries), objects=len(objects))
    if page.more:
        return StepResult(run.continued(page.entries[-1]["id"], at=at))
    return StepResult(run.stage_completed(at=at))


def subjects_of(event: Json) -> list[tuple[Subject, str]]:
    """The recorded objects that a Stripe event is about, as kind and Stripe's ID."""
    subject = event["data"]["object"]
    # An event has the shape of the API version at which it was created, and some objects have no ID.
    match subject:
        case {"object": "subscription", "id": str(stripe_id)}:
            return [("subscription", stripe_id)]
        case {"object": "payment_intent", "id": str(stripe_id)}:
            return [("payment", stripe_id)]
        case {"object": "charge" | "refund", "payment_intent": str(intent_id)}:
            return [("payment", intent_id)]
        case {"object": "invoice_payment", "payment": {"payment_intent": str(intent_id)}}:
            return [("payment", intent_id)]
        case {"object": "dispute", "id": str(stripe_id)}:
            return [("dispute", stripe_id)]
        case {"object": "customer", "id": str(stripe_id)}:
            return [("customer", stripe_id)]
        case _:
            return []


async def _subscription(entry: Json, stored: Any, step: Step) -> Drift | None:
    try:
        stripe_subscription = await step.stripe.complete_subscription(entry)
    except StripeRefused as refused:
        if refused.code != RESOURCE_MISSING:
            raise
        # Deleted since it was listed.
        stripe_subscription = None
    return await compare_subscription(entry["id"], stored, stripe_subscription, step.billing)


async def _payment(entry: Json, stored: Any, step: Step) -> Drift | None:
    return await compare_payment(entry["id"], stored, await step.stripe.complete_payment(entry), step.billing)


async def _dispute(entry: Json, stored: Any, step: Step) -> Drift | None:
    return await compare_dispute(entry["id"], stored, parse_dispute(entry), step.billing, step.stripe)


def _cursor_of(entry: Json) -> str:
    return f"{entry['created']}.{entry['id']}"


def _parse_cursor(cursor: str | None) -> tuple[datetime | None, str | None]:
    """Creation time and ID of the last entry of the previous page."""
    if cursor is None:
        return None, None
    created, _, stripe_id = cursor.partition(".")
    return parse_time(int(created)), stripe_id


customers: Final = records_stage("customers", "customer")
subscriptions: Final = listed_stage("subscriptions", "subscription", _subscription)
trials: Final = records_stage("trials", "trial")
payments: Final = listed_stage("payments", "payment", _payment)
disputes: Final = listed_stage("disputes", "dispute", _dispute)
