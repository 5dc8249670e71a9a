"""Handlers for disputes: synchronization with Stripe, and the list for operators."""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.disputes.sync import sync_dispute
from services.billing.events.pending import follow
from services.billing.payments.pagination import page_of
from shared.bus.work import Work
from shared.messages.billing.disputes import DisputesView, FollowDispute, ListDisputes


async def follow_dispute(command: FollowDispute, work: Work, billing: Billing) -> None:
    """Read a dispute and its payment from Stripe, record both, and settle the pending events about the dispute."""
    await follow(command, command.dispute_id, sync_dispute, work, billing)


async def list_disputes(query: ListDisputes, work: Work, billing: Billing) -> DisputesView:
    """A page of disputes, newest first; raises InvalidCursor for a cursor that no page ended with."""
    views, next_cursor = await page_of(billing.disputes, query, work, billing)
    return DisputesView(disputes=views, next_cursor=next_cursor)
