"""Invoice line items, and the pending invoice items of prorations and of removed metered prices."""

from decimal import Decimal

from services.stripe_double.account import Account, Json, new_id
from services.stripe_double.meters import usage_between
from services.stripe_double.prices import amount_of, is_metered


def line_item(
    price: Json,
    *,
    amount: int,
    description: str,
    period: tuple[int, int],
    quantity: int | Decimal,
    subscription: str,
    item: str,
    proration: bool = False,
    invoice_item: str | None = None,
) -> Json:
    """Return one line item of an invoice.

    Args:
        price: The price that it charges or credits.
        amount: Amount in the smallest unit; negative for a credit.
        description: Text for the customer.
        period: Start and end of the paid period in Unix seconds.
        quantity: Quantity or usage of the price.
        subscription: ID of the subscription.
        item: ID of the subscription item.
        proration: Whether it corrects an earlier invoice.
        invoice_item: ID of the pending invoice item that it comes from.
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
        "pricing": _pricing(price),
        **_quantity(quantity),
        "subscription": subscription,
        "subtotal": amount,
        "taxes": [],
    }


def _quantity(quantity: int | Decimal) -> Json:
    # Usage can be a fraction, which only the decimal shows.
    return {"quantity": int(quantity), "quantity_decimal": f"{Decimal(quantity).normalize():f}"}


def _pricing(price: Json) -> Json:
    return {
        "price_details": {"price": price["id"], "product": price["product"]},
        "type": "price_details",
        "unit_amount_decimal": price["unit_amount_decimal"],
    }


def period_lines(account: Account, subscription: Json, items: list[Json]) -> list[Json]:
    """Return the line items that bill subscription items for their current period; 0 during a trial.

    Metered ones are billed in arrears: for the usage before the period.
    """
    trialing = subscription["status"] == "trialing"
    lines = []
    for item in items:
        price = account.get("price", item["price"])
        name = account.get("product", price["product"])["name"]
        period = item["current_period_start"], item["current_period_end"]
        quantity = item["quantity"]
        if is_metered(price):
            period = period if trialing else item["_arrears"]
            quantity = 0 if trialing else _usage(account, subscription, price, period)
        lines.append(
            line_item(
                price,
                amount=0 if trialing else amount_of(price, quantity),
                description=f"Trial period for {name}" if trialing else f"{quantity} of {name}",
                period=(period[0], period[1]),
                quantity=quantity,
                subscription=subscription["id"],
                item=item["id"],
            )
        )
    return lines


def _usage(account: Account, subscription: Json, price: Json, period: tuple[int, int]) -> Decimal:
    used = usage_between(account, price["recurring"]["meter"], subscription["customer"], *period)
    return Decimal(f"{used.normalize():f}")


def bill_usage(account: Account, subscription: Json, item: Json) -> None:
    """Create the pending invoice item for the usage of a metered item that leaves its subscription now; none for 0."""
    price, period = account.get("price", item["price"]), (item["_usage_from"], account.now)
    usage = _usage(account, subscription, price, period)
    name = account.get("product", price["product"])["name"]
    if (amount := amount_of(price, usage)) != 0:
        _put_pending(
            account, subscription, item, amount=amount, description=f"{usage} of {name}", period=period, quantity=usage
        )


def prorate(account: Account, subscription: Json, item: Json, *, sign: int, at: int) -> None:
    """Create the pending invoice item for the rest of an item's period; none during a trial, for usage or for 0.

    Args:
        account: The account.
        subscription: The item's subscription.
        item: Subscription item with the price, quantity and period to prorate.
        sign: -1 to credit the unused time, +1 to charge the remaining time.
        at: Start of the prorated time in Unix seconds.
    """
    start, end = item["current_period_start"], item["current_period_end"]
    price = account.get("price", item["price"])
    if is_metered(price):
        return
    share = max(0, end - at) / max(1, end - start)
    amount = sign * round(amount_of(price, item["quantity"]) * share)
    if amount == 0 or subscription["status"] == "trialing":
        return
    name = account.get("product", price["product"])["name"]
    _put_pending(
        account,
        subscription,
        item,
        amount=amount,
        description=f"{'Unused' if sign < 0 else 'Remaining'} time on {name}",
        period=(at, end),
        quantity=item["quantity"],
    )


def _put_pending(
    account: Account,
    subscription: Json,
    item: Json,
    *,
    amount: int,
    description: str,
    period: tuple[int, int],
    quantity: int | Decimal,
) -> None:
    price = account.get("price", item["price"])
    entry = account.new(
        "invoiceitem",
        amount=amount,
        currency=price["currency"],
        customer=subscription["customer"],
        customer_account=None,
        date=account.now,
        description=description,
        discountable=False,
        discounts=[],
        invoice=None,
        metadata={},
        net_amount=amount,
        parent={
            "subscription_details": {
                "subscription": subscription["id"],
                "subscription_item": item["id"],
            },
            "type": "subscription_details",
        },
        period={"start": period[0], "end": period[1]},
        pricing=_pricing(price),
        proration=True,
        **_quantity(quantity),
        tax_rates=[],
        test_clock=None,
    )
    # Unlike other objects, an invoice item has a `date`.
    del entry["created"]
    account.put(entry)


def pending_items(account: Account, subscription: Json) -> list[Json]:
    """Return the invoice items of a subscription that are on no invoice yet, oldest first."""
    return [
        entry
        for entry in reversed(account.owned("invoiceitem", subscription["customer"]))
        if entry["invoice"] is None and entry["parent"]["subscription_details"]["subscription"] == subscription["id"]
    ]


def delete_pending_items(account: Account, subscription: Json) -> None:
    """Delete the pending invoice items, as a cancellation without a final invoice does."""
    for entry in pending_items(account, subscription):
        account.remove("invoiceitem", entry["id"])


def add_pending_items(account: Account, subscription: Json, invoice: str) -> list[Json]:
    """Assign all pending invoice items to an invoice; return its line items for them."""
    lines = pending_lines(account, subscription)
    for entry in pending_items(account, subscription):
        account.update(entry, invoice=invoice)
    return lines


def pending_lines(account: Account, subscription: Json) -> list[Json]:
    """Return the line items of the pending invoice items."""
    return [
        line_item(
            account.get("price", entry["pricing"]["price_details"]["price"]),
            amount=entry["amount"],
            description=entry["description"],
            period=(entry["period"]["start"], entry["period"]["end"]),
            quantity=Decimal(entry["quantity_decimal"]),
            subscription=subscription["id"],
            item=entry["parent"]["subscription_details"]["subscription_item"],
            proration=True,
            invoice_item=entry["id"],
        )
        for entry in pending_items(account, subscription)
    ]
