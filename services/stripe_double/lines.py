"""What is on an invoice? Its lines, the amounts waiting for the next one, and prorations."""

from services.stripe_double.account import Account, Json
from services.stripe_double.ids import new_id


def line(
    price: Json,
    *,
    amount: int,
    description: str,
    period: tuple[int, int],
    quantity: int,
    subscription: str,
    item: str,
    proration: bool = False,
    invoice_item: str | None = None,
) -> Json:
    """Returns one line of an invoice.

    Args:
        price: The price that it charges or credits.
        amount: In the smallest unit, negative for a credit.
        description: For the customer.
        period: Start and end of what is paid for, in Unix seconds.
        quantity: How many.
        subscription: The id of the subscription.
        item: The id of its item.
        proration: Whether it corrects what was billed before.
        invoice_item: The id of the waiting amount that it was.
    """
    return {
        "id": new_id("line_item"),
        "object": "line_item",
        "amount": amount,
        "currency": price["currency"],
        "description": description,
        "discount_amounts": [],
        "discountable": not proration,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": {},
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": invoice_item,
                "proration": proration,
                "proration_details": {"credited_items": None},
                "subscription": subscription,
                "subscription_item": item,
            },
            "type": "subscription_item_details",
        },
        "period": {"start": period[0], "end": period[1]},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": quantity,
        "subtotal": amount,
        "taxes": [],
    }


def of_period(account: Account, subscription: Json, items: list[Json]) -> list[Json]:
    """Returns the lines that bill items for their current period; a trial's cost nothing."""
    trialing = subscription["status"] == "trialing"
    lines = []
    for item in items:
        price = account.get("price", item["price"])
        name = account.get("product", price["product"])["name"]
        total = 0 if trialing else price["unit_amount"] * item["quantity"]
        described = f"Trial period for {name}" if trialing else f"{item['quantity']} of {name}"
        lines.append(
            line(
                price,
                amount=total,
                description=described,
                period=(item["current_period_start"], item["current_period_end"]),
                quantity=item["quantity"],
                subscription=subscription["id"],
                item=item["id"],
            )
        )
    return lines


def prorate(account: Account, subscription: Json, item: Json, *, sign: int, at: int) -> None:
    """Leaves an amount for the rest of an item's period waiting for the next invoice.

    Args:
        account: Where.
        subscription: The item's.
        item: With the price, quantity and period that count.
        sign: -1 credits the time that is not used, +1 charges it.
        at: From when on.
    """
    start, end = item["current_period_start"], item["current_period_end"]
    price = account.get("price", item["price"])
    left = max(0, end - at) / max(1, end - start)
    amount = sign * round(price["unit_amount"] * item["quantity"] * left)
    if amount == 0 or subscription["status"] == "trialing":
        return
    name = account.get("product", price["product"])["name"]
    account.put(
        account.new(
            "invoiceitem",
            amount=amount,
            currency=price["currency"],
            customer=subscription["customer"],
            description=f"{'Unused' if sign < 0 else 'Remaining'} time on {name}",
            invoice=None,
            metadata={},
            parent={
                "subscription_details": {
                    "subscription": subscription["id"],
                    "subscription_item": item["id"],
                },
                "type": "subscription_details",
            },
            period={"start": at, "end": end},
            pricing={
                "price_details": {"price": price["id"], "product": price["product"]},
                "type": "price_details",
                "unit_amount_decimal": price["unit_amount_decimal"],
            },
            proration=True,
            quantity=item["quantity"],
        )
    )


def waiting(account: Account, subscription: Json) -> list[Json]:
    """Returns the amounts of a subscription that no invoice has taken yet, oldest first."""
    return [
        entry
        for entry in reversed(account.owned("invoiceitem", subscription["customer"]))
        if entry["invoice"] is None and entry["parent"]["subscription_details"]["subscription"] == subscription["id"]
    ]


def drop_waiting(account: Account, subscription: Json) -> None:
    """Forgets what waits, as an ending without a last invoice does."""
    for entry in waiting(account, subscription):
        account.remove("invoiceitem", entry["id"])


def taken(account: Account, subscription: Json, invoice: str) -> list[Json]:
    """Moves all that waits onto an invoice; returns its lines."""
    lines = []
    for entry in waiting(account, subscription):
        account.update(entry, invoice=invoice)
        lines.append(
            line(
                account.get("price", entry["pricing"]["price_details"]["price"]),
                amount=entry["amount"],
                description=entry["description"],
                period=(entry["period"]["start"], entry["period"]["end"]),
                quantity=entry["quantity"],
                subscription=subscription["id"],
                item=entry["parent"]["subscription_details"]["subscription_item"],
                proration=True,
                invoice_item=entry["id"],
            )
        )
    return lines
