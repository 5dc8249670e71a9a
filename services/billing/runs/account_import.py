"""Stages of an import, which takes over an account that existed before Nest.

Products and prices are taken over first, then customers, then their subscriptions, payments and disputes. Nobody gets a
mail about them. After each page the run waits until its commands are handled. So they never pile up in front of
webhooks, and the customers without a user are known at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from services.billing.customers.attribution import request_user
from services.billing.payments.sync import record_payment
from services.billing.runs.comparison import repair_command
from services.billing.runs.models import Drift
from services.billing.runs.steps import Stage, Step, StepResult, add_found, map_until_timeout
from services.billing.stripe_api.lists import Page, StripeList
from services.billing.stripe_api.parsing import Json, parse_customer
from services.billing.stripe_api.payment_models import StripePayment
from services.billing.stripe_api.payment_parsing import parse_dispute, parse_payment
from services.billing.subscriptions.duplicates import live_duplicates
from services.billing.subscriptions.models import LIVE
from services.billing.subscriptions.products import dispute_left_alone, payment_left_alone
from shared.ids import derived_message_id
from shared.messages.billing.runs import Subject
from shared.messages.billing.subscriptions import DuplicateSubscriptionFound

PAUSES: Final = tuple(timedelta(seconds=seconds) for seconds in (0.5, 1, 2, 4, 8, 15, 30, 60))
"""Pauses between the checks whether the commands of a page are handled; after the last one the final comparison finds
what is missing."""
SUBSCRIPTIONS_PER_STEP: Final = 1_000


async def take_customers(step: Step) -> StepResult:
    """Map a page of customers to users: by metadata, otherwise by address, as for a webhook.

    In an account that sells other products too, a customer may have nothing of Nest's. Then only metadata maps it, and
    the users of the others are found with their subscriptions.
    """
    run, at, billing = step.run, step.work.now, step.billing
    page = await step.stripe.list_page("customers", after=run.cursor)
    users = await billing.mappings.users_of(entry["id"] for entry in page.entries)
    unmapped = [parse_customer(entry) for entry in page.entries if entry["id"] not in users]
    if run.check_round == 0:
        run = run.counted(account_customers=len(page.entries), attached=0, asked=0, nobody=0)
        for customer in unmapped:
            if customer.user_id is not None:
                billing.mappings.attach(customer.id, customer.user_id, step.work)
                run = run.counted(attached=1)
            elif customer.email is not None and not billing.products:
                request_user(customer.id, customer.email, step.work, billing)
                run = run.counted(asked=1)
    expected = [
        each for each in unmapped if each.user_id is not None or (each.email is not None and not billing.products)
    ]
    if expected and run.check_round < len(PAUSES):
        return StepResult(run.continued(run.cursor, at=at, check_round=run.check_round + 1), PAUSES[run.check_round])
    # Includes customers whose address auth rejects.
    nobody = [] if billing.products else unmapped
    without_user = [Drift(subject="customer", stripe_id=each.id, our_id=None, kind="nobody") for each in nobody]
    run = run.counted(nobody=await add_found(without_user, step)).having_read(len(page.entries))
    if page.more:
        return StepResult(run.continued(page.entries[-1]["id"], at=at))
    return StepResult(run.stage_completed(at=at))


def take_stage(name: StripeList, subject: Subject) -> Stage:
    """The stage that orders the reading of all objects of one of Stripe's lists that have no record."""

    async def stage(step: Step) -> StepResult:
        run, at = step.run, step.work.now
        page = await step.stripe.list_page(name, after=run.cursor)
        stored = await step.billing.records.of_subject(subject).of(entry["id"] for entry in page.entries)
        new = await _of_nest([each for each in page.entries if each["id"] not in stored and _has_user(each)], step)
        if run.check_round == 0:
            for entry in reversed(new):
                drift = Drift(subject=subject, stripe_id=entry["id"], our_id=None, kind="missing_here")
                step.work.publish(repair_command(drift))
            run = run.counted(**{f"taken_{name}": len(new)})
        if new and run.check_round < len(PAUSES):
            return StepResult(
                run.continued(run.cursor, at=at, check_round=run.check_round + 1), PAUSES[run.check_round]
            )
        run = run.having_read(len(page.entries))
        if page.more:
            return StepResult(run.continued(page.entries[-1]["id"], at=at))
        return StepResult(run.stage_completed(at=at))

    return stage


async def take_invoice_payments(step: Step) -> StepResult:
    """Record a page of the payments of invoices, as the list shows them: a call for each would take hours."""
    page = await step.stripe.list_page("invoice_payments", after=step.run.cursor)
    return await _record_page(page, [await step.stripe.complete_invoice_payment(each) for each in page.entries], step)


async def take_payments(step: Step) -> StepResult:
    """Record a page of the payments without an invoice."""
    page = await step.stripe.list_page("payments", after=step.run.cursor)
    return await _record_page(page, [parse_payment(each, None) for each in page.entries], step)


async def _record_page(page: Page, listed: Sequence[StripePayment | None], step: Step) -> StepResult:
    run, at, work, billing = step.run, step.work.now, step.work, step.billing
    # An invoice may have several payments, and a payment several invoices: the last entry is its first one.
    payments = {each.id: each for each in listed if each is not None and each.livemode is billing.livemode}
    stored = await billing.records.payments.of(payments)
    taken = 0
    # Oldest first, so that the events are in order.
    for payment in reversed(payments.values()):
        if payment.id not in stored and not await payment_left_alone(payment, None, billing):
            await record_payment(None, payment, work, billing)
            taken += 1
    run = run.counted(taken_payments=taken).having_read(len(page.entries))
    if page.more:
        return StepResult(run.continued(page.entries[-1]["id"], at=at))
    return StepResult(run.stage_completed(at=at))


async def duplicates(step: Step) -> StepResult:
    """Announce live duplicates that were taken over: Nest does not cancel them, a person decides."""
    run, at, billing = step.run, step.work.now, step.billing
    users, ended = await billing.records.subscriptions.users_with_several(
        LIVE, after=run.cursor, limit=SUBSCRIPTIONS_PER_STEP
    )
    drifts = []
    for user_id in users:
        subscriptions = await billing.subscriptions.of_user(user_id)
        for pair in live_duplicates(subscriptions, at=at, policy=billing.access, exclusions=billing.exclusions):
            duplicate, kept = pair.subscription, pair.kept
            if not duplicate.taken_over:
                continue
            drifts.append(
                Drift(
                    subject="subscription",
                    stripe_id=duplicate.stp_subscription_id,
                    our_id=duplicate.id,
                    kind="duplicate",
                    field_differences=[{"field": "duplicate_of", "ours": None, "theirs": kept.stp_subscription_id}],
                )
            )
            step.work.publish(
                DuplicateSubscriptionFound(
                    key=user_id, user_id=user_id, subscription_id=duplicate.id, kept_subscription_id=kept.id
                ),
                id=derived_message_id("duplicate-found", duplicate.id, kept.id),
            )
    run = run.counted(duplicates=await add_found(drifts, step))
    if ended is not None:
        return StepResult(run.continued(ended, at=at))
    return StepResult(run.stage_completed(at=at))


async def _of_nest(entries: list[Json], step: Step) -> list[Json]:
    """The entries that are not left alone, because they are of a product that Nest sells."""
    if not step.billing.products:
        return entries
    sold: list[bool] = []
    while len(sold) < len(entries):
        sold += await map_until_timeout(entries[len(sold) :], lambda entry: _sold(entry, step))
    return [entry for entry, by_nest in zip(entries, sold, strict=True) if by_nest]


async def _sold(entry: Json, step: Step) -> bool:
    billing, stripe = step.billing, step.stripe
    match entry["object"]:
        case "subscription":
            return (await stripe.complete_subscription(entry)).sold_by_nest
        case "product":
            return billing.sells(entry["id"])
        case "price":
            return billing.sells(entry["product"])
        case _:
            return not await dispute_left_alone(parse_dispute(entry), billing, stripe)


def _has_user(entry: Json) -> bool:
    """Whether an object can be recorded: a subscription needs a user, for whom an address is enough."""
    if entry["object"] != "subscription":
        return True
    customer = parse_customer(entry["customer"])
    return bool(entry["metadata"].get("user_id") or customer.user_id or customer.email)


take_products: Final = take_stage("products", "product")
take_prices: Final = take_stage("prices", "price")
take_subscriptions: Final = take_stage("subscriptions", "subscription")
take_disputes: Final = take_stage("disputes", "dispute")
