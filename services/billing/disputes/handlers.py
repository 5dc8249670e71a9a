"""How are the records of disputes kept true, and read?"""

from __future__ import annotations

from collections.abc import Sequence

from services.billing.context import Billing
from services.billing.disputes.sync import follow_stripe_dispute
from services.billing.events.models import EventRow, Outcome
from services.billing.events.pending import read_for
from services.billing.payments.pages import one_page
from shared.bus.work import Work
from shared.messages.billing.disputes import DisputesView, FollowDispute, ListDisputes


async def follow_dispute(command: FollowDispute, work: Work, billing: Billing) -> None:
    """Bring our records of a dispute and its payment to what Stripe says; later, if Stripe can't be asked now."""

    async def read(_hints: Sequence[EventRow]) -> Outcome:
        dispute = await follow_stripe_dispute(command.dispute_id, work, billing)
        return "missing" if dispute is None else "read"

    await read_for(command, command.dispute_id, read, work, billing)


async def list_disputes(query: ListDisputes, work: Work, billing: Billing) -> DisputesView:
    """The disputes asked for, newest first, a page at a time.

    Raises:
        InvalidCursor: no page ended with it.
    """
    views, next_cursor = await one_page(billing.disputes, query, work, billing)
    return DisputesView(disputes=views, next_cursor=next_cursor)
