"""How is an account taken over that lived before Nest? Its people, then what they have, written to nobody.

Each page is ordered and then waited for before the next one is taken: so the orders never pile up before webhooks,
and what nobody can be found for is known in the end.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.billing.customers.attribution import ask_auth
from services.billing.runs.comparison import repair_of
from services.billing.runs.models import Drift
from services.billing.runs.steps import Done, Stage, Step, report
from services.billing.runs.store import Mirror
from services.billing.stripe_api.lists import Listed, page_of
from services.billing.stripe_api.parsing import Json, customer_of
from services.billing.subscriptions.models import LIVE, rivals
from shared.ids import derived_message_id
from shared.messages.billing.runs import Subject
from shared.messages.billing.subscriptions import DuplicateSubscriptionFound

PAUSES: Final = tuple(timedelta(seconds=seconds) for seconds in (0.5, 1, 2, 4, 8, 15, 30, 60))
"""Between looks whether what was ordered of a page is there; then it is left to the comparison at the end."""
USERS_AT_ONCE: Final = 200


async def take_customers(step: Step) -> Done:
    """Attach a page of customers to users: by their metadata, else by their address, as a webhook's would be."""
    run, at, billing = step.run, step.work.now, step.billing
    page = await page_of("customers", step.stripe.calls, after=run.cursor)
    users = await billing.mappings.users_of(entry["id"] for entry in page.entries)
    strangers = [customer_of(entry) for entry in page.entries if entry["id"] not in users]
    if run.look == 0:
        run = run.counted(account_customers=len(page.entries), attached=0, asked=0, nobody=0)
        for customer in strangers:
            if customer.user_id is not None:
                billing.mappings.attach(customer.id, customer.user_id, step.work)
                run = run.counted(attached=1)
            elif customer.email is not None:
                ask_auth(customer.id, customer.email, step.work, billing)
                run = run.counted(asked=1)
    waited_for = [each for each in strangers if each.user_id is not None or each.email is not None]
    if waited_for and run.look < len(PAUSES):
        return Done(run.on(run.cursor, at=at, look=run.look + 1), PAUSES[run.look])
    # Those whose address auth does not take among them.
    nobody = [Drift(subject="customer", stripe_id=each.id, our_id=None, kind="nobody") for each in strangers]
    run = run.counted(nobody=await report(nobody, step))
    return Done(run.on(page.entries[-1]["id"], at=at) if page.more else run.past_stage(at=at))


def taking(listed: Listed, subject: Subject, mirror: str) -> Stage:
    """The stage that has everything of a list recorded that is not yet.

    Args:
        listed: which list.
        subject: what is in it.
        mirror: the name of our records of it.
    """

    async def stage(step: Step) -> Done:
        run, at = step.run, step.work.now
        records: Mirror[object] = getattr(step.billing.mirrors, mirror)
        page = await page_of(listed, step.stripe.calls, after=run.cursor)
        held = await records.of(entry["id"] for entry in page.entries)
        new = [entry for entry in page.entries if entry["id"] not in held and _somebodys(entry)]
        if run.look == 0:
            for entry in reversed(new):
                drift = Drift(subject=subject, stripe_id=entry["id"], our_id=None, kind="missing_here")
                step.work.publish(repair_of(drift))
            run = run.counted(**{f"taken_{listed}": len(new)})
        if new and run.look < len(PAUSES):
            return Done(run.on(run.cursor, at=at, look=run.look + 1), PAUSES[run.look])
        return Done(run.on(page.entries[-1]["id"], at=at) if page.more else run.past_stage(at=at))

    return stage


async def duplicates(step: Step) -> Done:
    """Tell of people who have several live subscriptions: what was taken over is cancelled by nobody but people."""
    run, at, billing = step.run, step.work.now, step.billing
    users = await billing.mirrors.subscriptions.users_with_several(LIVE, after=run.cursor, limit=USERS_AT_ONCE)
    drifts = []
    for user_id in users:
        for newcomer, kept in rivals(await billing.subscriptions.of_user(user_id), at=at, grace=billing.grace):
            if not newcomer.taken_over:
                continue
            drifts.append(
                Drift(
                    subject="subscription",
                    stripe_id=newcomer.stp_subscription_id,
                    our_id=newcomer.id,
                    kind="duplicate",
                    different=[{"field": "duplicate_of", "ours": None, "theirs": kept.stp_subscription_id}],
                )
            )
            step.work.publish(
                DuplicateSubscriptionFound(
                    key=user_id, user_id=user_id, subscription_id=newcomer.id, kept_subscription_id=kept.id
                ),
                id=derived_message_id("duplicate-found", newcomer.id, kept.id),
            )
    run = run.counted(duplicates=await report(drifts, step))
    return Done(run.on(users[-1], at=at) if len(users) == USERS_AT_ONCE else run.past_stage(at=at))


def _somebodys(entry: Json) -> bool:
    """Whether it can be recorded: a subscription is somebody's, of whom at least an address is known."""
    if entry["object"] != "subscription":
        return True
    customer = customer_of(entry["customer"])
    named = entry["metadata"].get("user_id") or customer.user_id or customer.email
    return bool(named)


take_subscriptions: Final = taking("subscriptions", "subscription", "subscriptions")
take_payments: Final = taking("payments", "payment", "payments")
take_disputes: Final = taking("disputes", "dispute", "disputes")
