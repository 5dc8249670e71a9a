"""How is everything compared with Stripe? Both ways round: Stripe's lists against our records, and ours against Stripe.

What differs at first sight is only suspected (``looks.py`` reads it again): pages are read while the world goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from services.billing.runs.comparison import dispute_drift, examine, payment_drift, subscription_drift
from services.billing.runs.models import Drift
from services.billing.runs.steps import Done, Stage, Step, suspect
from services.billing.runs.store import MAX_UNLISTED, Mirror
from services.billing.stripe_api.lists import Listed, as_far, events_page, page_of
from services.billing.stripe_api.parsing import Json, dispute_of, moment
from services.billing.stripe_api.payments import whole_payment
from shared.messages.billing.runs import Subject
from shared.telemetry import log

OURS_AT_ONCE: Final = 50
STANDING_AT_ONCE: Final = 200
EVENTS_AT_ONCE: Final = 10
"""Each may lead to an object that is read by itself, and all of a page belong to one step."""
Whole = Callable[[Json, Any, Step], Awaitable[Drift | None]]
"""Holds an entry of a list against our record of it."""


async def known(step: Step) -> Done:
    """Begin with what is known to differ: it is looked at again, whatever the run goes over."""
    run, at = step.run, step.work.now
    found = await step.billing.standings.page(after=run.cursor, limit=STANDING_AT_ONCE)
    drifts = [Drift(subject=each.subject, stripe_id=each.stripe_id, our_id=None, kind=each.kind) for each in found]
    await suspect(drifts, step)
    return Done(run.on(found[-1].id, at=at) if len(found) == STANDING_AT_ONCE else run.past_stage(at=at))


def stripes(listed: Listed, subject: Subject, mirror: str, whole: Whole) -> Stage:
    """The stage that goes over one of Stripe's lists, and over our records of the same stretch of time.

    Args:
        listed: which list.
        subject: what is in it.
        mirror: the name of our records of it.
        whole: holds an entry against our record.
    """

    async def stage(step: Step) -> Done:
        run, at = step.run, step.work.now
        records: Mirror[Any] = getattr(step.billing.mirrors, mirror)
        made_until, after = _place(run.cursor)
        page = await page_of(listed, step.stripe.calls, after=after)
        held = await records.of(entry["id"] for entry in page.entries)
        drifts = await as_far(page.entries, lambda entry: whole(entry, held.get(entry["id"]), step))
        seen = page.entries[: len(drifts)]
        over = len(seen) == len(page.entries) and not page.more
        missing = await records.unlisted(
            [entry["id"] for entry in page.entries],
            made_from=None if over else moment(seen[-1]["created"]),
            made_until=made_until,
        )
        if len(missing) == MAX_UNLISTED:
            log.error("stripe lists hardly anything that we have: is it the right account?", objects=listed)
        gone = [
            Drift(subject=subject, stripe_id=stripe_id, our_id=our_id, kind="missing_there")
            for stripe_id, our_id in missing.items()
        ]
        await suspect([*filter(None, drifts), *gone], step)
        run = run.counted(**{listed: len(seen)})
        return Done(run.past_stage(at=at) if over else run.on(_cursor(seen[-1]), at=at))

    return stage


def ours(mirror: str, subject: Subject) -> Stage:
    """The stage that goes over our records of what Stripe has no list for that would say as much.

    Args:
        mirror: the name of our records.
        subject: what they are of.
    """

    async def stage(step: Step) -> Done:
        run, at = step.run, step.work.now
        records: Mirror[Any] = getattr(step.billing.mirrors, mirror)
        page = await records.after(run.cursor, limit=OURS_AT_ONCE)
        drifts = await as_far(page, lambda entry: examine(subject, entry[1], step.billing, step.stripe))
        await suspect(filter(None, drifts), step)
        run = run.counted(**{mirror: len(drifts)})
        over = len(drifts) == len(page) < OURS_AT_ONCE
        return Done(run.past_stage(at=at) if over else run.on(page[len(drifts) - 1][0], at=at))

    return stage


async def changed(step: Step) -> Done:
    """Compare what Stripe's events have told of since some hours before the run began."""
    run, at = step.run, step.work.now
    since = run.started_at - timedelta(hours=run.asked["hours"])
    page = await events_page(
        step.stripe.calls, after=run.cursor, limit=EVENTS_AT_ONCE, created={"gte": int(since.timestamp())}
    )
    about = [subject for event in page.entries for subject in subjects_of(event)]
    trials = await step.billing.mirrors.trials.of(stripe_id for kind, stripe_id in about if kind == "subscription")
    wanted = [*dict.fromkeys([*about, *(("trial", stripe_id) for stripe_id in trials)])]
    # Where a step ended among the objects could not be told from the events, so all of them belong to it.
    drifts: list[Drift | None] = []
    while len(drifts) < len(wanted):
        drifts += await as_far(wanted[len(drifts) :], lambda each: examine(*each, step.billing, step.stripe))
    await suspect(filter(None, drifts), step)
    run = run.counted(events=len(page.entries), objects=len(wanted))
    return Done(run.on(page.entries[-1]["id"], at=at) if page.more else run.past_stage(at=at))


def subjects_of(event: Json) -> list[tuple[Subject, str]]:
    """What of ours an event of Stripe's is about."""
    about = event["data"]["object"]
    match about["object"]:
        case "subscription":
            return [("subscription", about["id"])]
        case "payment_intent":
            return [("payment", about["id"])]
        case "charge" | "refund" if about.get("payment_intent"):
            return [("payment", about["payment_intent"])]
        case "invoice_payment" if about["payment"].get("payment_intent"):
            return [("payment", about["payment"]["payment_intent"])]
        case "dispute":
            return [("dispute", about["id"])]
        case "customer":
            return [("customer", about["id"])]
        case _:
            return []


async def _subscription(entry: Json, held: Any, step: Step) -> Drift | None:
    truth = await step.stripe.whole_subscription(entry)
    return await subscription_drift(entry["id"], held, truth, step.billing)


async def _payment(entry: Json, held: Any, step: Step) -> Drift | None:
    return await payment_drift(entry["id"], held, await whole_payment(entry, step.stripe.calls), step.billing)


async def _dispute(entry: Json, held: Any, step: Step) -> Drift | None:
    return await dispute_drift(entry["id"], held, dispute_of(entry), step.billing)


def _cursor(entry: Json) -> str:
    return f"{entry['created']}.{entry['id']}"


def _place(cursor: str | None) -> tuple[datetime | None, str | None]:
    """When the last entry before a page was made, and its id."""
    if cursor is None:
        return None, None
    made, _, stripe_id = cursor.partition(".")
    return datetime.fromtimestamp(int(made), UTC), stripe_id


subscriptions: Final = stripes("subscriptions", "subscription", "subscriptions", _subscription)
payments: Final = stripes("payments", "payment", "payments", _payment)
disputes: Final = stripes("disputes", "dispute", "disputes", _dispute)
customers: Final = ours("customers", "customer")
trials: Final = ours("trials", "trial")
