"""Handlers for disputes: synchronization with Stripe, and the list for operators."""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.disputes.sync import sync_dispute
from services.billing.events.pending import pending_events, settle
from services.billing.payments.pagination import page_of
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.reschedule import reschedule
from shared.bus.work import Work
from shared.messages.billing.disputes import DisputesView, FollowDispute, ListDisputes
from shared.messages.billing.errors import StripeUnavailable


async def follow_dispute(command: FollowDispute, work: Work, billing: Billing) -> None:
    """Read a dispute and its payment from Stripe, record both, and settle the pending events about the dispute."""
    pending = await pending_events(command, command.dispute_id, billing)
    if pending is None:
        return
    try:
        dispute = await sync_dispute(command.dispute_id, work, billing)
    except StripeUnavailable:
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(dispute=command.dispute_id)
        settle(pending, "refused", work, billing)
        return
    settle(pending, dispute if isinstance(dispute, str) else "read", work, billing)


async def list_disputes(query: ListDisputes, work: Work, billing: Billing) -> DisputesView:
    """A page of disputes, newest first; raises InvalidCursor for a cursor that no page ended with."""
    views, next_cursor = await page_of(billing.disputes, query, work, billing)
    return DisputesView(disputes=views, next_cursor=next_cursor)
