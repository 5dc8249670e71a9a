"""Handlers of usage: it is stored by the call, and sent to Stripe in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from services.billing import metrics
from services.billing.context import Billing
from services.billing.stripe_api.calls import KeySpent, StripeRefused
from services.billing.stripe_api.reschedule import reschedule
from services.billing.subscriptions.models import current
from services.billing.usage.models import Outcome, UsageRow, in_time
from shared.bus.work import Work
from shared.messages.billing.errors import (
    StripeUnavailable,
    UsageIdentifierReused,
    UsageOutOfTime,
    UserWithoutCustomer,
)
from shared.messages.billing.usage import ReportUsage, SendUsage, UsageAccepted
from shared.telemetry import log

PER_COMMAND: Final = 20
"""Entries that one command sends: at the low-priority rate of test mode they take four seconds."""
DUPLICATE: Final = "duplicate_meter_event"
"""Stripe's error code for an identifier that it has already."""


async def report_usage(command: ReportUsage, work: Work, billing: Billing) -> UsageAccepted:
    """Store usage and order its sending; the call makes no call to Stripe.

    Raises:
        UserWithoutCustomer: a user has no customer in Stripe.
        UsageOutOfTime: an entry is too old, or ahead.
        UsageIdentifierReused: an identifier belongs to another entry.
    """
    given = {usage.identifier: usage for usage in command.usage}
    rows = await billing.usage.with_ids(given)
    reused = [each.identifier for each in command.usage if each != given[each.identifier]]
    reused += [name for name, row in rows.items() if not row.repeated_by(given[name])]
    if reused:
        raise UsageIdentifierReused(positions=_positions(reused, command))
    new = [usage for name, usage in given.items() if name not in rows]
    late = [usage.identifier for usage in new if usage.at is not None and not in_time(usage.at, at=work.now)]
    if late:
        raise UsageOutOfTime(positions=_positions(late, command))
    users = sorted({usage.user_id for usage in new})
    found = await asyncio.gather(*(_customer_of(user_id, work, billing) for user_id in users))
    customers = dict(zip(users, found, strict=True))
    missing = [usage.identifier for usage in new if customers[usage.user_id] is None]
    if missing:
        raise UserWithoutCustomer(positions=_positions(missing, command))
    for usage in new:
        billing.usage.add(UsageRow.accept(usage, customers[usage.user_id] or "", at=work.now), work)
    ids = tuple(usage.identifier for usage in new)
    for start in range(0, len(ids), PER_COMMAND):
        work.publish(SendUsage(usage_ids=ids[start : start + PER_COMMAND]))
    return UsageAccepted(accepted=len(new), repeated=len(command.usage) - len(new))


def _positions(identifiers: Collection[str], command: ReportUsage) -> list[int]:
    return [number for number, each in enumerate(command.usage) if each.identifier in identifiers]


async def _customer_of(user_id: str, work: Work, billing: Billing) -> str | None:
    """The customer that pays for the usage of a user: that of the active subscription, else the latest one."""
    subscription = current(await billing.subscriptions.of_user(user_id), at=work.now, policy=billing.access)
    if subscription is not None:
        return subscription.stp_customer_id
    mapping = await billing.mappings.find_by_user(user_id)
    return None if mapping is None else mapping.provider_value


async def send_usage(command: SendUsage, work: Work, billing: Billing) -> None:
    """Send stored usage to Stripe, with low priority, and record the outcome of each entry.

    Stripe counts an identifier once within 24 hours. If the process stops after a call and before the commit, the entry
    is sent again under the same identifier and idempotency key.
    """
    rows = [row for row in (await billing.usage.with_ids(command.usage_ids)).values() if row.outcome is None]
    outcomes = await asyncio.gather(*(_send(row, command.attempt, work, billing) for row in rows))
    waiting = tuple(row.id for row, outcome in zip(rows, outcomes, strict=True) if outcome is None)
    for row, outcome in zip(rows, outcomes, strict=True):
        if outcome is not None:
            metrics.USAGE.labels(outcome).inc()
            billing.usage.save(row.settled(outcome, at=work.now), work)
    if waiting:
        reschedule(command.model_copy(update={"usage_ids": waiting}), work)


async def _send(row: UsageRow, attempt: int, work: Work, billing: Billing) -> Outcome | None:
    """Send an entry; None if Stripe is unavailable."""
    if not in_time(row.at, at=work.now):
        log.error("usage became too old for stripe", usage=row.id)
        return "expired"
    try:
        await billing.stripe.low_priority().send_usage(
            event_name=row.event_name,
            customer_id=row.stp_customer_id,
            value=row.value,
            identifier=row.id,
            at=row.at,
            key=f"usage:{row.id}:{attempt}",
        )
    except (StripeUnavailable, KeySpent):
        # The next attempt has another idempotency key: Stripe keeps a failure under a key for a day. The identifier
        # decides whether the entry counted.
        return None
    except StripeRefused as refused:
        if refused.code == DUPLICATE:
            return "sent"
        refused.report(usage=row.id)
        return "refused"
    return "sent"
