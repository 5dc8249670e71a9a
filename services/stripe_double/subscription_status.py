"""Status changes of subscriptions: after payments and failed payments, at cancellation and expiry."""

from services.stripe_double import events, invoices
from services.stripe_double.account import Account, Json

ENDED = ("canceled", "incomplete_expired")
"""Final statuses of a subscription."""


def payment_succeeded(account: Account, invoice: Json) -> None:
    """Activate the subscription if its latest invoice is paid, or if a bank debit of it is processing."""
    subscription = invoices.subscription_of(account, invoice)
    if invoices.pends(subscription, invoice):
        _apply_pending_update(account, subscription)
        return
    if subscription["latest_invoice"] != invoice["id"]:
        return
    if subscription["status"] in {"incomplete", "past_due", "unpaid"}:
        _set_status(account, subscription, "active")


def payment_failed(account: Account, invoice: Json) -> None:
    """Make an active subscription past due after a failed attempt; an incomplete one stays incomplete.

    The invoice of a pending update changes nothing until it is paid.
    """
    subscription = invoices.subscription_of(account, invoice)
    if invoices.pends(subscription, invoice):
        return
    if subscription["status"] == "active" and subscription["latest_invoice"] == invoice["id"]:
        _set_status(account, subscription, "past_due")


def _apply_pending_update(account: Account, subscription: Json) -> None:
    after = account.update(
        subscription,
        items=subscription["pending_update"]["subscription_items"],
        billing_cycle_anchor=subscription["_pending"]["billing_cycle_anchor"],
        pending_update=None,
        _pending=None,
    )
    if not after["_defer_events"]:
        events.emit(account, "customer.subscription.pending_update_applied", after)
        events.emit(account, "customer.subscription.updated", after, before=subscription)


def retries_exhausted(account: Account, invoice: Json) -> None:
    """Apply the account's setting `after_retries` to a past due subscription after its last attempt failed."""
    subscription = invoices.subscription_of(account, invoice)
    if subscription["status"] != "past_due":
        return
    if account.settings.after_retries == "canceled":
        end(account, subscription, reason="payment_failed")
    else:
        _set_status(account, subscription, account.settings.after_retries)


def _set_status(account: Account, subscription: Json, status: str) -> None:
    """Set the status; emit no event while a request is still changing the subscription (`_defer_events`)."""
    after = account.update(subscription, status=status)
    if not after["_defer_events"]:
        events.emit_if_changed(account, "customer.subscription.updated", subscription, after)


def end(account: Account, subscription: Json, *, reason: str | None) -> Json:
    """Cancel a subscription now, stop the collection of its invoices, and return it.

    An incomplete subscription becomes `incomplete_expired`, and its invoice is voided.

    Args:
        account: The account.
        subscription: A subscription that has not ended.
        reason: `cancellation_details.reason`: `cancellation_requested`, `payment_failed`,
            `payment_disputed`; None where Stripe gives none.
    """
    if subscription["status"] == "incomplete":
        _void_latest_invoice(account, subscription)
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
    """Expire a subscription whose first invoice was not paid within 23 hours; return it."""
    _void_latest_invoice(account, subscription)
    after = account.update(subscription, status="incomplete_expired", ended_at=account.now)
    events.emit(account, "customer.subscription.updated", after, before=subscription)
    return after


def _void_latest_invoice(account: Account, subscription: Json) -> None:
    invoice = account.find("invoice", subscription["latest_invoice"] or "")
    if invoice is not None and invoice["status"] == "open":
        invoices.void(account, invoice)
