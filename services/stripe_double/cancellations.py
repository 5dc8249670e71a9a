"""How is a subscription canceled now, and how is it paused and resumed? The verbs of the API."""

from services.stripe_double import events, lines
from services.stripe_double.account import Account, Json
from services.stripe_double.billing import bill, restarted
from services.stripe_double.endings import OVER, end
from services.stripe_double.errors import StripeApiError, missing, not_played
from services.stripe_double.params import Params
from services.stripe_double.subscriptions import cancellation_details
from services.stripe_double.trials import paused_because


def cancel(account: Account, params: Params, identifier: str) -> Json:
    """DELETE /v1/subscriptions/{id}: ends it now.

    `prorate` makes a credit for the unused time, `invoice_now` a last invoice that turns it into
    customer balance. Money goes back by a refund only. One that is over is not found again.
    """
    before = account.get("subscription", identifier)
    if before["status"] in OVER:
        raise missing("subscription", identifier)
    credited = params.flag("prorate", default=False)
    invoiced = params.flag("invoice_now", default=False)
    details = cancellation_details(params, before)
    params.finish()
    subscription = account.update(before, cancellation_details=details, _quiet=True)
    if credited and subscription["status"] != "incomplete":
        for item in subscription["items"]:
            lines.prorate(account, subscription, item, sign=-1, at=account.now)
    if invoiced and lines.waiting(account, subscription):
        subscription = bill(account, subscription, [], "subscription_update", at_once=True)
    elif not credited and not invoiced:
        lines.drop_waiting(account, subscription)
    return end(account, account.update(subscription, _quiet=False), reason="cancellation_requested")


def pause(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/subscriptions/{id}/pause: no periods, no invoices, until it is resumed."""
    before = account.get("subscription", identifier)
    params.choice("type", ("subscription",))
    invoicing = params.choice("invoicing_behavior", ("invoice", "pending_invoice_item"), "pending_invoice_item")
    credited = _unused_time(params)
    params.finish()
    if before["status"] not in {"active", "past_due", "trialing"}:
        raise StripeApiError(f"You can't pause a subscription that is {before['status']}.")
    subscription = account.update(before, _quiet=True)
    if credited:
        for item in subscription["items"]:
            lines.prorate(account, subscription, item, sign=-1, at=account.now)
    if invoicing == "invoice" and lines.waiting(account, subscription):
        subscription = bill(account, subscription, [], "subscription_update", at_once=True)
    paused = account.update(
        subscription, status="paused", status_details=paused_because(account, "pause_requested"), _quiet=False
    )
    events.emit(account, "customer.subscription.paused", paused)
    return events.changed(account, "customer.subscription.updated", before, paused)


def _unused_time(params: Params) -> bool:
    bill_for = params.child("bill_for")
    if bill_for is None:
        return True
    unused = bill_for.child("unused_time_from")
    choice = unused.choice("type", ("now", "none")) if unused else "now"
    bill_for.raw("outstanding_usage_through")  # metered prices are not played, so there is no usage
    bill_for.finish()
    return choice != "none"


def resume(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/subscriptions/{id}/resume: a new cycle begins now and is charged at once."""
    before = account.get("subscription", identifier)
    behavior = params.choice(
        "payment_behavior", ("resume_on_payment_attempt", "resume_on_payment_success"), "resume_on_payment_attempt"
    )
    anchor = params.child("billing_cycle_anchor")
    params.choice("proration_behavior", ("always_invoice", "create_prorations", "none"))
    if anchor is not None and anchor.text("type") == "unchanged":
        raise not_played("resuming with the old anchor", "billing_cycle_anchor[type]")
    if behavior == "resume_on_payment_success":
        raise not_played(behavior, "payment_behavior")
    params.finish()
    if before["status"] != "paused":
        raise StripeApiError(f"You can only resume paused subscriptions, not {before['status']} ones.")
    resumed = {**before, "status": "active", "status_details": None, "_quiet": True}
    started = account.put(restarted(account, resumed, account.now))
    subscription = bill(account, started, started["items"], "subscription_update", at_once=True)
    subscription = account.update(subscription, _quiet=False)
    events.emit(account, "customer.subscription.resumed", subscription)
    return events.changed(account, "customer.subscription.updated", before, subscription)
