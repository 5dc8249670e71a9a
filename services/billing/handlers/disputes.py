"""How are the records of disputes kept true, and read?"""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.errors import StripeUnavailable
from services.billing.following.disputes import follow_stripe_dispute
from services.billing.handlers.pages import one_page
from services.billing.stripe.putting_off import later
from shared.messages.billing import DisputesView, FollowDispute, ListDisputes
from shared.work import Work


async def follow_dispute(command: FollowDispute, work: Work, billing: Billing) -> None:
    """Bring our records of a dispute and its payment to what Stripe says; later, if Stripe can't be asked now."""
    try:
        await follow_stripe_dispute(command.dispute_id, work, billing)
    except StripeUnavailable:
        again = command.model_copy(update={"key": work.key, "attempt": command.attempt + 1})
        work.publish(again, at=later(command.attempt, work))


async def list_disputes(query: ListDisputes, work: Work, billing: Billing) -> DisputesView:
    """The disputes asked for, newest first, a page at a time.

    Raises:
        InvalidCursor: no page ended with it.
    """
    views, next_cursor = await one_page(billing.disputes, query, work, billing)
    return DisputesView(disputes=views, next_cursor=next_cursor)
