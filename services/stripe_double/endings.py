"""How does a subscription end? At once; what was asked for later waits in `cancel_at`."""

from services.stripe_double import events, invoices
from services.stripe_double.account import Account, Json

OVER = ("canceled", "incomplete_expired")
"""Statuses that no subscription leaves."""


def end(account: Account, subscription: Json, *, reason: str | None) -> Json:
    """Ends a subscription now, stops its invoices and announces it; returns it.

    One that was never paid becomes `incomplete_expired`, with its invoice voided.

    Args:
        account: Where.
        subscription: One that is not over.
        reason: For `cancellation_details`: `cancellation_requested`, `payment_failed`,
            `payment_disputed`, or None where Stripe gives none.
    """
    if subscription["status"] == "incomplete":
        _void(account, subscription)
        status = "incomplete_expired"
    else:
        status = "canceled"
    invoices.stop_collection(account, subscription)
    after = account.update(
        subscription,
        status=status,
        canceled_at=subscription["canceled_at"] or account.now,
        cancellation_details={
            **subscription["cancellation_details"],
            "reason": subscription["cancellation_details"]["reason"] or reason,
        },
        ended_at=account.now,
        status_details=None,
    )
    events.emit(account, "customer.subscription.deleted", after)
    return after


def expire(account: Account, subscription: Json) -> Json:
    """Ends a subscription whose first invoice nobody paid within 23 hours."""
    _void(account, subscription)
    after = account.update(subscription, status="incomplete_expired", ended_at=account.now)
    events.emit(account, "customer.subscription.updated", after, before=subscription)
    return after


def _void(account: Account, subscription: Json) -> None:
    invoice = account.find("invoice", subscription["latest_invoice"] or "")
    if invoice is not None and invoice["status"] == "open":
        invoices.void(account, invoice)
