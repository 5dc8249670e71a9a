"""Stages that compare all records with Stripe: Stripe's lists with our records, and our records with Stripe.

A drift is only suspected at first, since pages are read while both sides change; ``recheck.py`` checks it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final

from services.billing.runs.comparison import (
    compare,
    compare_customer,
    compare_dispute,
    compare_payment,
    compare_subscription,
    price_drift,
    product_drift,
    trial_drift,
)
from services.billing.runs.models import Drift
from services.billing.runs.steps import Stage, Step, StepResult, add_suspected, map_until_timeout
from services.billing.runs.store import MAX_UNLISTED
from services.billing.stripe_api.calls import RESOURCE_MISSING, StripeRefused
from services.billing.stripe_api.lists import StripeList
from services.billing.stripe_api.parsing import Json, parse_customer, parse_time
from services.billing.stripe_api.payment_parsing import parse_dispute, parse_payment
from shared.messages.billing.runs import Subject
from shared.telemetry import log

KNOWN_PER_STEP: Final = 200
EVENTS_PER_STEP: Final = 10
"""Each event may lead to an object that is read on its own, and all objects of a page belong to one step."""
MAPPINGS_PER_STEP: Final = 500
CompareEntry = Callable[[Json, Any, Step], Awaitable[Sequence[Drift | None]]]
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
        if subject == "subscription":
            missing += [
                Drift(subject="trial", stripe_id=stripe_id, our_id=trial.id, kind="missing_there")
                for stripe_id, trial in (await step.billing.records.trials.of(unlisted)).items()
            ]
        await add_suspected([*filter(None, chain.from_iterable(drifts)), *missing], step)
        run = run.counted(**{name: len(compared)}).having_read(len(compared))
        return StepResult(run.stage_completed(at=at) if completed else run.continued(_cursor_of(compared[-1]), at=at))

    return stage


async def customers(step: Step) -> StepResult:
    """Compare Stripe's list of customers with our mappings; ``mappings`` compares those that the list does not show."""
    run, at, records = step.run, step.work.now, step.billing.records
    page = await step.stripe.list_page("customers", after=run.cursor)
    listed = [parse_customer(entry) for entry in page.entries]
    stored = await records.customers.of(each.id for each in listed)
    users = await records.users_of_customers([each.id for each in listed if each.id not in stored])
    drifts = [
        await compare_customer(each.id, stored.get(each.id), each, step.billing, recorded_user_id=users.get(each.id))
        for each in listed
    ]
    await add_suspected(filter(None, drifts), step)
    run = run.counted(customers=len(stored)).having_read(len(listed))
    if page.more:
        return StepResult(run.continued(listed[-1].id, at=at))
    return StepResult(run.stage_completed(at=at))


async def mappings(step: Step) -> StepResult:
    """Find mappings of customers that Stripe does not have.

    A customer with a subscription or a payment exists if these do, so only the others are read, one by one.
    """
    records = step.billing.records

    async def with_records(customer_ids: Collection[str]) -> Collection[str]:
        return await records.users_of_customers(customer_ids)

    return await _records_step(step, "customer", with_records)


async def trials(step: Step) -> StepResult:
    """Compare the trials whose subscription has no record; ``subscriptions`` compares the others."""
    counted = replace(step, run=step.run.counted(trials=0))
    return await _records_step(counted, "trial", step.billing.records.subscriptions.of)


async def _records_step(
    step: Step, subject: Subject, covered: Callable[[Collection[str]], Awaitable[Collection[str]]]
) -> StepResult:
    """Compare a page of our records with Stripe, one by one, except those that another stage has covered."""
    run, at = step.run, step.work.now
    page = await step.billing.records.of_subject(subject).after(run.cursor, limit=MAPPINGS_PER_STEP)
    others = await covered([stripe_id for _, stripe_id in page])
    left = [(our_id, stripe_id) for our_id, stripe_id in page if stripe_id not in others]
    drifts = await map_until_timeout(left, lambda record: compare(subject, record[1], step.billing, step.stripe))
    await add_suspected(filter(None, drifts), step)
    if len(drifts) < len(left):
        return StepResult(run.continued(left[len(drifts) - 1][0], at=at))
    if subject == "trial":
        run = run.counted(trials=len(page))
    if len(page) < MAPPINGS_PER_STEP:
        return StepResult(run.stage_completed(at=at))
    return StepResult(run.continued(page[-1][0], at=at))


async def invoice_payments(step: Step) -> StepResult:
    """Compare the payments of invoices, each with its invoice, so that no payment needs a call of its own."""
    run, at, records = step.run, step.work.now, step.billing.records.payments
    page = await step.stripe.list_page("invoice_payments", after=run.cursor)
    listed = [await step.stripe.complete_invoice_payment(entry) for entry in page.entries]
    payments = [each for each in listed if each is not None]
    stored = await records.of(each.id for each in payments)
    drifts = [await compare_payment(each.id, stored.get(each.id), each, step.billing) for each in payments]
    await add_suspected(filter(None, drifts), step)
    run = run.having_read(len(listed))
    if page.more:
        return StepResult(run.continued(page.entries[-1]["id"], at=at))
    return StepResult(run.stage_completed(at=at))


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
        case {"object": "product", "id": str(stripe_id)}:
            return [("product", stripe_id)]
        case {"object": "price", "id": str(stripe_id)}:
            return [("price", stripe_id)]
        case {"object": "customer", "id": str(stripe_id)}:
            return [("customer", stripe_id)]
        case _:
            return []


async def _subscription(entry: Json, stored: Any, step: Step) -> Sequence[Drift | None]:
    try:
        stripe_subscription = await step.stripe.complete_subscription(entry)
    except StripeRefused as refused:
        if refused.code != RESOURCE_MISSING:
            raise
        # Deleted since it was listed.
        stripe_subscription = None
    trial = await step.billing.records.trials.find(entry["id"])
    return [
        await compare_subscription(entry["id"], stored, stripe_subscription, step.billing),
        None if trial is None else trial_drift(trial, stripe_subscription),
    ]


async def _payment(entry: Json, stored: Any, step: Step) -> Sequence[Drift | None]:
    if stored is not None and stored.stp_invoice_id is not None:
        # ``invoice_payments`` has compared it together with its invoice.
        return []
    return [await compare_payment(entry["id"], stored, parse_payment(entry, None), step.billing)]


async def _dispute(entry: Json, stored: Any, step: Step) -> Sequence[Drift | None]:
    return [await compare_dispute(entry["id"], stored, parse_dispute(entry), step.billing, step.stripe)]


async def _product(entry: Json, stored: Any, step: Step) -> Sequence[Drift | None]:
    if not step.billing.sells(entry["id"]):
        return []
    return [product_drift(entry["id"], stored, await step.stripe.complete_product(entry), step.billing)]


async def _price(entry: Json, stored: Any, step: Step) -> Sequence[Drift | None]:
    return [price_drift(entry["id"], stored, await step.stripe.complete_price(entry), step.billing)]


def _cursor_of(entry: Json) -> str:
    return f"{entry['created']}.{entry['id']}"


def _parse_cursor(cursor: str | None) -> tuple[datetime | None, str | None]:
    """Creation time and ID of the last entry of the previous page."""
    if cursor is None:
        return None, None
    created, _, stripe_id = cursor.partition(".")
    return parse_time(int(created)), stripe_id


subscriptions: Final = listed_stage("subscriptions", "subscription", _subscription)
payments: Final = listed_stage("payments", "payment", _payment)
disputes: Final = listed_stage("disputes", "dispute", _dispute)
products: Final = listed_stage("products", "product", _product)
prices: Final = listed_stage("prices", "price", _price)
