"""Handlers of the billing history: its pages for operators, its recording, and credit notes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from pydantic import BaseModel

from services.billing.context import Billing
from services.billing.events.models import Outcome
from services.billing.events.pending import follow
from shared.bus.handling import Handler, Handlers
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import Query
from shared.messages.billing.history import (
    BillingHistoryView,
    CreditNoteIssued,
    CreditNoteVoided,
    FollowCreditNote,
    ListBillingHistory,
)
from shared.paging import cursor_of


def with_history(handlers: Handlers) -> Handlers:
    """The handlers, each adding the events that it publishes to the billing history in its own transaction."""
    return {kind: handler if issubclass(kind, Query) else _recording(handler) for kind, handler in handlers.items()}


def _recording(handler: Handler) -> Callable[[Any, Work, Billing], Any]:
    @wraps(handler)
    async def handle(message: Any, work: Work, billing: Billing) -> BaseModel | None:
        reply = await handler(message, work, billing)
        await billing.history.record(work)
        return reply

    return handle


async def list_billing_history(query: ListBillingHistory, work: Work, billing: Billing) -> BillingHistoryView:
    """A page of a user's history, newest first; raises InvalidCursor for a cursor that no page ended with."""
    work.annotate(user_id=query.user_id)
    entries = await billing.history.page(query.user_id, limit=query.limit, cursor=query.cursor)
    page = entries[: query.limit]
    return BillingHistoryView(
        entries=tuple(entry.view() for entry in page),
        next_cursor=cursor_of(page[-1].at, page[-1].id) if len(entries) > len(page) else None,
    )


async def follow_credit_note(command: FollowCreditNote, work: Work, billing: Billing) -> None:
    """Read a credit note from Stripe, announce it to its user's apps, and settle the pending events about it."""
    await follow(command, command.credit_note_id, _announce_credit_note, work, billing)


async def _announce_credit_note(credit_note_id: str, work: Work, billing: Billing) -> Outcome:
    note = await billing.stripe.credit_note(credit_note_id)
    if note is None:
        return "missing"
    if note.livemode is not billing.livemode:
        return "other_mode"
    mapping = await billing.mappings.find(note.customer_id)
    if mapping is None:
        # In a shared account it may be for a product of somebody else.
        return "nobody"
    if await billing.erased.contains_any(note.customer_id, mapping.user_id):
        return "erased"
    kind = CreditNoteVoided if note.status == "void" else CreditNoteIssued
    message_id = derived_message_id("credit-note", note.id, note.status)
    # Read for each event about it, and announced once for each status.
    if await billing.history.find(message_id) is None:
        event = kind(
            key=mapping.user_id,
            user_id=mapping.user_id,
            stp_credit_note_id=note.id,
            stp_invoice_id=note.invoice_id,
            status=note.status,
            reason=note.reason,
            amount=note.amount,
            currency=note.currency,
            happened_at=note.voided_at or note.created,
        )
        work.publish(event, id=message_id)
    return "read"
