"""Pending updates: changes of items that take effect when their invoice is paid.

See docs.stripe.com/billing/subscriptions/pending-updates.
"""

from services.stripe_double import invoice_items, invoices
from services.stripe_double.account import Account, Json
from services.stripe_double.billing import bill, finalize_and_collect
from services.stripe_double.clock import HOUR
from services.stripe_double.errors import StripeApiError
from services.stripe_double.params import Params
from services.stripe_double.subscription_items import period_end

LIFETIME = 23 * HOUR
SUPPORTED = {
    "items",
    "metadata",
    "off_session",
    "payment_behavior",
    "proration_behavior",
    "proration_date",
}


def reject_unsupported(params: Params) -> None:
    """Refuse parameters that an update with `pending_if_incomplete` must not have."""
    for name in params.values:
        if name not in SUPPORTED:
            raise StripeApiError(
                f"`{name}` can't be updated when `payment_behavior` is `pending_if_incomplete`.", param=name
            )


def items_to_bill(account: Account, before: Json, changed: Json, *, charge_now: bool) -> list[Json] | None:
    """Return the items with a new period, which are billed at once with the prorations; None if nothing is billed."""
    ends = {item["id"]: item["current_period_end"] for item in before["items"]}
    new_cycle = any(
        ends.get(item["id"], item["current_period_end"]) != item["current_period_end"] for item in changed["items"]
    )
    if new_cycle:
        return list(changed["items"])
    return [] if charge_now and invoice_items.pending_items(account, changed) else None


def change_items(account: Account, before: Json, changed: Json, *, charge_now: bool) -> Json:
    """Change the items if nothing is due or the invoice is paid at once; otherwise keep the change until it is.

    A further update replaces the pending one and voids its invoice.
    """
    if before["pending_update"] is not None:
        invoices.void(account, account.get("invoice", before["_pending"]["invoice"]))
        changed = {**changed, "pending_update": None, "_pending": None}
    changed = account.put(changed)
    items = items_to_bill(account, before, changed, charge_now=charge_now)
    if items is None:
        return changed
    billed = bill(account, changed, items, "subscription_update", charge_now=False)
    invoice = account.get("invoice", billed["latest_invoice"])
    account.update(
        billed,
        items=before["items"],
        billing_cycle_anchor=before["billing_cycle_anchor"],
        pending_update={
            "billing_cycle_anchor": None,
            "cancel_at_period_end": None,
            "discount": None,
            "discounts": None,
            "expires_at": min(account.now + LIFETIME, period_end(before)),
            "metadata": None,
            "subscription_items": changed["items"],
            "trial_end": None,
            "trial_from_plan": None,
        },
        _pending={"invoice": invoice["id"], "billing_cycle_anchor": changed["billing_cycle_anchor"]},
    )
    # Stripe does not retry the payment of such an invoice by itself.
    finalize_and_collect(account, account.update(invoice, auto_advance=False, automatically_finalizes_at=None))
    return account.get("subscription", before["id"])
