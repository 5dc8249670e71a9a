"""Parsing of Stripe's customers and subscriptions, at the API version pinned in ``calls.py``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from services.billing.stripe_api.models import (
    ItemTerms,
    PlannedPhase,
    StripeCard,
    StripeCustomer,
    StripeSubscription,
    SubscriptionItem,
)
from shared.messages.types import trimmed_address

Json = dict[str, Any]
DUPLICATE_COMMENT: Final = "Nest: duplicate of "
"""Cancellation comment of a duplicate that Nest cancelled; our ID of the subscription that was kept follows."""
TRIAL_COMMENT: Final = "Nest: trial replaced by {kept}, {days} days carried over"
"""Cancellation comment of a trial that Nest ended because its user subscribed."""
_TRIAL_COMMENT: Final = re.compile(r"Nest: trial replaced by (\S+), (\d+) days carried over")
EXTENDED_BY: Final = "nest_extended_by"
"""Metadata of a subscription to which the remaining days of a trial were added: our ID of the trial's subscription."""
PLANNED_BY_NEST: Final = "nest_plan_change"
"""Metadata of a schedule that Nest made for a downgrade."""
COUPON_COMMENT: Final = "Nest: a coupon is required"
"""Cancellation comment of a subscription that Nest cancelled because it lacks the required coupon."""
UNDONE_COMMENT: Final = "Nest: nobody redeemed the link of this trial"
"""Cancellation comment of the subscription of a trial that nobody redeemed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpaidInvoices:
    """The open invoices of a subscription that is ``past_due`` or ``unpaid``.

    Attributes:
        since: creation of the oldest one.
        payment_link: where the newest one can be paid.
        paid_before: whether an earlier invoice was paid.
    """

    since: datetime | None
    payment_link: str | None
    paid_before: bool


def parse_subscription(
    json: Json,
    items: list[Json],
    *,
    products: frozenset[str] = frozenset(),
    unpaid: UnpaidInvoices | None = None,
) -> StripeSubscription:
    """Parse a subscription.

    Args:
        json: with ``customer``, ``discounts``, ``latest_invoice`` and ``schedule`` expanded.
        items: all of its items, one at least. Since API version 2025-03-31.basil each item has its own period.
        products: those that Nest sells; empty for all.
        unpaid: its open invoices, if it is ``past_due`` or ``unpaid``.
    """
    details = json["cancellation_details"] or {}
    # A comment with a feedback is a person's, who may have typed anything.
    comment = "" if details.get("feedback") else details.get("comment") or ""
    replaced = _TRIAL_COMMENT.fullmatch(comment)
    ours = [item for item in items if not products or item["price"]["product"] in products]
    counted = ours or items
    # Stripe leaves an ID where a part is not expanded.
    latest = json.get("latest_invoice")
    invoice: Json = latest if isinstance(latest, dict) else {}
    return StripeSubscription(
        id=json["id"],
        customer=parse_customer(json["customer"]),
        status=json["status"],
        product_id=counted[0]["price"]["product"],
        user_id=json["metadata"].get("user_id") or None,
        trial_id=json["metadata"].get("trial_id") or None,
        created=parse_time(json["created"]),
        period_start=min(parse_time(item["current_period_start"]) for item in counted),
        period_end=max(parse_time(item["current_period_end"]) for item in counted),
        cancel_at=parse_optional_time(json["cancel_at"]),
        cancel_at_period_end=json["cancel_at_period_end"],
        canceled_at=parse_optional_time(json["canceled_at"]),
        ended_at=parse_optional_time(json["ended_at"]),
        trial_start=parse_optional_time(json["trial_start"]),
        trial_end=parse_optional_time(json["trial_end"]),
        coupons=frozenset(_coupon_id(discount) for discount in json["discounts"]),
        duplicate_of=(
            replaced[1]
            if replaced
            else comment.removeprefix(DUPLICATE_COMMENT)
            if comment.startswith(DUPLICATE_COMMENT)
            else None
        ),
        livemode=json["livemode"],
        overdue_since=None if unpaid is None else unpaid.since,
        collection_paused=(json.get("pause_collection") or {}).get("behavior"),
        end_reason=_end_reason(comment, details.get("reason")),
        sold_by_nest=bool(ours),
        sold_by_others=len(ours) < len(items),
        items=tuple(_parse_item(item) for item in counted),
        carried_over_days=int(replaced[2]) if replaced else 0,
        extended_by=json["metadata"].get(EXTENDED_BY) or None,
        schedule_ends_at=_schedule_end(json.get("schedule")),
        schedule_id=_id_of(json.get("schedule")),
        free=_is_free(json["status"], counted, invoice),
        paid=_is_paid(invoice) or (unpaid is not None and unpaid.paid_before),
        payable=json["collection_method"] == "send_invoice" or _payment_method(json) is not None,
        extendable=_is_extendable(items),
        payment_link=None if unpaid is None else unpaid.payment_link,
        pause_requested=_pause_type(json) == "pause_requested",
        nests_schedule=_is_nests_schedule(json.get("schedule")),
        planned=_planned_phase(json.get("schedule")),
        currency=json["currency"],
        terms=tuple(map(_parse_terms, counted)),
        price=None if json["discounts"] else _price_of(counted),
        interval=_interval_of(counted),
        pending=_pending_items(json.get("pending_update")),
        pending_until=parse_optional_time((json.get("pending_update") or {}).get("expires_at")),
        latest_invoice_id=_id_of(latest),
        invoiced=json["collection_method"] == "send_invoice",
        payment_method_id=_payment_method(json),
    )


def _parse_terms(item: Json) -> ItemTerms:
    price: Json = item["price"]
    recurring: Json = price.get("recurring") or {}
    return ItemTerms(
        interval=recurring.get("interval", ""),
        interval_count=recurring.get("interval_count", 1),
        unit_amount=price["unit_amount"],
        metered=recurring.get("usage_type") == "metered",
    )


def _is_nests_schedule(schedule: Json | str | None) -> bool:
    return isinstance(schedule, dict) and PLANNED_BY_NEST in (schedule.get("metadata") or {})


def _planned_phase(schedule: Json | str | None) -> PlannedPhase | None:
    if not isinstance(schedule, dict) or schedule["status"] != "active" or not schedule.get("current_phase"):
        return None
    end = schedule["current_phase"]["end_date"]
    phase = next((each for each in schedule["phases"] if each["start_date"] >= end), None)
    if phase is None:
        return None
    items = tuple((_id_of(item["price"]) or "", item.get("quantity")) for item in phase["items"])
    return PlannedPhase(starts_at=parse_time(phase["start_date"]), items=items)


def _pending_items(pending: Json | None) -> dict[str, tuple[str, int | None]]:
    items = [] if pending is None else pending["subscription_items"] or []
    return {item["id"]: (item["price"]["id"], item.get("quantity")) for item in items}


def _price_of(items: list[Json]) -> int | None:
    """The amount of a period; None if an item has no amount of its own or discounts of its own."""
    total = 0
    for item in items:
        amount, quantity = item["price"].get("unit_amount"), item.get("quantity")
        if amount is None or quantity is None or item.get("discounts"):
            return None
        total += amount * quantity
    return total


def _interval_of(items: list[Json]) -> Any:
    recurring: Json = items[0]["price"].get("recurring") or {}
    return recurring.get("interval") if recurring.get("interval_count") == 1 else None


def _id_of(part: Json | str | None) -> str | None:
    """The ID of a part that may be expanded."""
    return part["id"] if isinstance(part, dict) else part


def _pause_type(json: Json) -> str | None:
    paused: Json = (json.get("status_details") or {}).get("paused") or {}
    return (paused.get("subscription") or {}).get("type")


def _parse_item(item: Json) -> SubscriptionItem:
    return SubscriptionItem(
        stp_item_id=item["id"],
        stp_product_id=item["price"]["product"],
        stp_price_id=item["price"]["id"],
        quantity=item.get("quantity"),
    )


def _schedule_end(schedule: Json | str | None) -> datetime | None:
    """When a schedule cancels its subscription, at the end of its last phase."""
    if not isinstance(schedule, dict) or schedule["status"] not in ("active", "not_started"):
        return None
    if schedule["end_behavior"] != "cancel" or not schedule["phases"]:
        return None
    return parse_time(schedule["phases"][-1]["end_date"])


def _is_free(status: str, items: list[Json], invoice: Json) -> bool:
    # Tiered and metered prices have no amount of their own.
    if all(item["price"]["unit_amount"] == 0 or item.get("quantity") == 0 for item in items):
        return True
    # A coupon for the whole price. During a trial every invoice is zero.
    return status != "trialing" and invoice.get("total") == 0


def _is_paid(invoice: Json) -> bool:
    """Whether an invoice was paid with money: charged, from the customer's balance, or outside of Stripe."""
    return invoice.get("status") == "paid" and invoice["total"] > 0


def _payment_method(json: Json) -> str | None:
    """The ID of what Stripe charges (https://docs.stripe.com/billing/subscriptions/payment-methods-setting)."""
    customer = json["customer"]
    settings = customer.get("invoice_settings") or {}
    sources = (
        json.get("default_payment_method"),
        json.get("default_source"),
        settings.get("default_payment_method"),
        customer.get("default_source"),
    )
    return next((_id_of(source) for source in sources if source is not None), None)


def _is_extendable(items: list[Json]) -> bool:
    licensed = all((item["price"].get("recurring") or {}).get("usage_type") == "licensed" for item in items)
    return licensed and len({item["current_period_end"] for item in items}) == 1


def parse_customer(json: Json) -> StripeCustomer:
    """Parse a customer; Stripe returns only the ID of a deleted one."""
    metadata, address = json.get("metadata") or {}, json.get("address") or {}
    return StripeCustomer(
        id=json["id"],
        email=trimmed_address(json.get("email") or "") or None,
        user_id=metadata.get("user_id") or None,
        deleted=json.get("deleted", False),
        country=(address.get("country") or "").upper() or None,
        region=(address.get("state") or "").upper() or None,
    )


def parse_card(json: Json) -> StripeCard | None:
    """Parse a payment method; None if it is no card."""
    card: Json | None = json.get("card")
    if card is None:
        return None
    return StripeCard(id=json["id"], last4=card["last4"], exp_month=card["exp_month"], exp_year=card["exp_year"])


def parse_time(seconds: int) -> datetime:
    """Parse one of Stripe's times, which are whole Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def parse_optional_time(seconds: int | None) -> datetime | None:
    """As ``parse_time``; None stays None."""
    return None if seconds is None else parse_time(seconds)


def _end_reason(comment: str, reason: str | None) -> str | None:
    if comment.startswith(DUPLICATE_COMMENT):
        return "duplicate"
    if comment == UNDONE_COMMENT:
        return "trial_undone"
    if _TRIAL_COMMENT.fullmatch(comment):
        return "trial_converted"
    return "coupon_missing" if comment == COUPON_COMMENT else reason


def _coupon_id(discount: Json) -> str:
    coupon = discount["source"]["coupon"]
    return str(coupon if isinstance(coupon, str) else coupon["id"])
