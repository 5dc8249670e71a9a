"""Previews of invoices: what a change of a subscription costs now, or what its next invoice will be."""

from services.stripe_double import invoice_items, invoices, pending_updates, subscription_items, subscriptions
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError
from services.stripe_double.params import Params
from services.stripe_double.subscription_items import with_period
from services.stripe_double.subscription_status import ENDED


def create_preview(account: Account, params: Params) -> Json:
    """POST /v1/invoices/create_preview: the invoice of a change of a `subscription`, or the next one.

    The change is made, invoiced and undone. So a preview equals the invoice of the update with the same parameters.

    Raises:
        StripeApiError: 400 for invalid parameters; 404 `invoice_upcoming_none` if there is no next invoice.
    """
    before = account.get("subscription", params.required("subscription"), param="subscription")
    details = params.nested("subscription_details") or Params({})
    items = details.nested_list("items")
    behavior = details.choice("proration_behavior", subscriptions.PRORATION_BEHAVIORS, "create_prorations")
    at = subscription_items.read_proration_date(details, before)
    details.reject_unknown()
    params.reject_unknown()
    if before["status"] in ENDED:
        raise _none_upcoming(before)
    with account.tentative():
        changed = account.put(
            subscription_items.with_items_changed(account, before, items, prorate=behavior != "none", at=at)
        )
        now = None
        if items:
            now = pending_updates.items_to_bill(account, before, changed, charge_now=behavior == "always_invoice")
        if now is None and before["cancel_at"] is not None:
            raise _none_upcoming(before)
        billed = changed if now is not None else _in_next_period(account, changed)
        lines = invoice_items.period_lines(account, billed, billed["items"] if now is None else now)
        draft = invoices.create_draft(account, billed, lines, "upcoming" if now is None else "subscription_update")
    customer = account.get("customer", before["customer"])
    due = max(0, draft["total"] + customer["balance"])
    return {
        **draft,
        "id": f"upcoming_{draft['id']}",
        "amount_due": due,
        "amount_remaining": due,
        "ending_balance": min(0, draft["total"] + customer["balance"]),
    }


def _in_next_period(account: Account, subscription: Json) -> Json:
    anchor = subscription["billing_cycle_anchor"]
    if subscription["status"] == "trialing":
        # The trial ends with the period, and a new billing cycle begins.
        anchor = subscription_items.period_end(subscription)
    items = [with_period(account, item, anchor, item["current_period_end"]) for item in subscription["items"]]
    return {**subscription, "items": items, "status": "active"}


def _none_upcoming(subscription: Json) -> StripeApiError:
    return StripeApiError(
        f"No upcoming invoices for customer: {subscription['customer']}", status=404, code="invoice_upcoming_none"
    )
