"""What does a subscription's new period cost? Its invoice, and the discounts that it uses up."""

from services.stripe_double import collection, discounts, invoices, lines
from services.stripe_double.account import Account, Json
from services.stripe_double.periods import next_boundary


def bill(account: Account, subscription: Json, items: list[Json], reason: str, *, at_once: bool) -> Json:
    """Invoices items for their current period, with what waits; returns the subscription after it.

    Args:
        account: Where.
        subscription: With the periods that are billed.
        items: Those of its items that have a new period.
        reason: Stripe's `billing_reason`.
        at_once: Finalize and charge now; a draft for an hour otherwise.
    """
    paused = subscription["pause_collection"]
    held = subscription["status"] == "unpaid" or paused is not None
    charged = lines.of_period(account, subscription, items)
    invoice = invoices.draft(account, subscription, charged, reason, held=held)
    used = [entry["discount"] for entry in invoice["total_discount_amounts"] if entry["amount"] > 0]
    spent = discounts.spent(account, used)
    discounts.detach(account, spent)
    account.update(
        subscription,
        latest_invoice=invoice["id"],
        discounts=[name for name in subscription["discounts"] if name not in spent],
    )
    if paused is not None:
        _put_aside(account, invoice, paused["behavior"])
    elif at_once and not held:
        collection.settle(account, invoice)
    return account.get("subscription", subscription["id"])


def _put_aside(account: Account, invoice: Json, behavior: str) -> None:
    if behavior == "keep_as_draft":
        return
    invoice = invoices.finalize(account, invoice)
    if invoice["status"] != "open":
        return
    if behavior == "void":
        invoices.void(account, invoice)
    else:
        invoices.give_up(account, invoice)


def with_period(account: Account, item: Json, anchor: int, start: int) -> Json:
    """Returns an item whose period begins at `start` and ends at the next boundary of its price."""
    recurring = account.get("price", item["price"])["recurring"]
    end = next_boundary(anchor, recurring["interval"], recurring["interval_count"], start)
    return {**item, "current_period_start": start, "current_period_end": end}


def restarted(account: Account, subscription: Json, at: int) -> Json:
    """Returns the subscription with its cycle begun anew: the anchor and every item's period start at `at`."""
    items = [with_period(account, item, at, at) for item in subscription["items"]]
    return {**subscription, "billing_cycle_anchor": at, "items": items}


def period_end(subscription: Json) -> int:
    """Returns when the last of the items' periods ends, in Unix seconds."""
    return int(max(item["current_period_end"] for item in subscription["items"]))
