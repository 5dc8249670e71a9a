"""How are the records of disputes kept true, and read?"""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.dispute_following import follow_stripe_dispute
from services.billing.errors import StripeUnavailable
from services.billing.putting_off import later
from services.billing.store.pages import Page, cursor_of
from shared.messages.billing import DisputesView, FollowDispute, ListDisputes
from shared.work import Work


async def follow_dispute(command: FollowDispute, work: Work, billing: Billing) -> None:
    """Bring our records of a dispute and its payment to what Stripe says; later, if Stripe can't be asked now."""
    try:
        await follow_stripe_dispute(command.dispute_id, work, billing)
    except StripeUnavailable:
        again = command.model_copy(update={"key": work.key, "attempt": command.attempt + 1})
        work.publish(again, at=later(command.attempt, work))


async def list_disputes(query: ListDisputes, _work: Work, billing: Billing) -> DisputesView:
    """The disputes asked for, newest first, a page at a time.

    Raises:
        InvalidCursor: no page ended with it.
    """
    customers = [] if query.user_id is None else await billing.mappings.customers_of(query.user_id)
    found = await billing.disputes.page(
        Page(user_id=query.user_id, customers=customers, status=query.status, limit=query.limit, cursor=query.cursor)
    )
    page = found[: query.limit]
    unattributed = {each.stp_customer_id for each in page if each.user_id is None and each.stp_customer_id is not None}
    users = await billing.mappings.users_of(unattributed) if unattributed else {}
    return DisputesView(
        disputes=tuple(each.view(each.user_id or users.get(each.stp_customer_id or "")) for each in page),
        next_cursor=cursor_of(page[-1]) if len(found) > len(page) else None,
    )
