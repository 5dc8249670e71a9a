"""The next invoice and the order of plans in the state of a customer."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.billing.customer_state.models import next_invoice, plans_of
from services.billing.stripe_api.catalog_models import PriceAmount, StripePrice
from services.billing.stripe_api.models import SubscriptionItem
from services.billing.subscriptions.models import AccessPolicy, Subscription

NOW = datetime(2026, 12, 1, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = AccessPolicy(grace=30 * DAY)


def subscription(*quantities: int | None, **changed: Any) -> Subscription:
    items = tuple(
        SubscriptionItem(stp_item_id=f"si_{n}", stp_product_id="prod_1", stp_price_id=f"price_{n}", quantity=quantity)
        for n, quantity in enumerate(quantities)
    )
    defaults: dict[str, Any] = {
        "id": "sub_1",
        "user_id": "user_ada",
        "stp_product_id": "prod_1",
        "stp_subscription_id": "sub_1",
        "stp_customer_id": "cus_1",
        "status": "active",
        "starts_at": NOW - 20 * DAY,
        "ends_at": NOW + 10 * DAY,
        "cancel_at": None,
        "cancel_type": None,
        "cancelled_at": None,
        "stp_created_at": NOW - 20 * DAY,
        "trial_id": None,
        "duplicate_of": None,
        "welcomed_at": None,
        "read_at": NOW,
        "created_at": NOW,
        "updated_at": NOW,
        "items": items,
        "currency": "usd",
        "amount_varies": False,
    }
    return Subscription(**{**defaults, **changed})


def price(amount: int | None, **changed: Any) -> StripePrice:
    amounts = {
        code: PriceAmount(unit_amount=value, unit_amount_decimal=None, tax_behavior="unspecified")
        for code, value in (("usd", amount), ("jpy", 100))
    }
    defaults: dict[str, Any] = {
        "id": "price_1",
        "product_id": "prod_1",
        "active": True,
        "currency": "usd",
        "amounts": amounts,
        "recurring": None,
        "tiers_mode": None,
        "divide_by": None,
        "round": None,
        "lookup_key": None,
        "nickname": None,
        "metadata": {},
        "created": NOW,
        "livemode": False,
    }
    return StripePrice(**{**defaults, **changed})


@pytest.mark.parametrize(
    ("plan", "prices", "amount"),
    [
        (subscription(1), [price(500)], 500),
        (subscription(3, 1), [price(500), price(250)], 1750),
        (subscription(2, currency="jpy"), [price(500)], 200),
        (subscription(1, currency="eur"), [price(500)], None),
        (subscription(1, currency=None), [price(500)], None),
        (subscription(None), [price(500)], None),
        (subscription(1), [price(None)], None),
        (subscription(1), [None], None),
        (subscription(6), [price(500, divide_by=5)], None),
        (subscription(1, amount_varies=True), [price(500)], None),
        (subscription(1, amount_varies=None), [price(500)], None),
        (subscription(), [], None),
    ],
)
def test_amount_of_the_next_invoice_is_computed_or_open(
    plan: Subscription, prices: list[StripePrice | None], amount: int | None
) -> None:
    invoice = next_invoice(plan, prices, at=NOW)
    assert invoice is not None
    assert (invoice.date, invoice.amount) == (plan.ends_at, amount)
    assert invoice.currency == (None if amount is None else plan.currency)


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "unpaid"},
        {"status": "paused"},
        {"status": "incomplete"},
        {"cancel_at": NOW + 10 * DAY},
        {"schedule_ends_at": NOW + 10 * DAY},
        {"collection_paused": "void"},
    ],
)
def test_what_does_not_renew_has_no_next_invoice(changed: dict[str, Any]) -> None:
    assert next_invoice(subscription(1, **changed), [price(500)], at=NOW) is None


def test_plans_with_access_come_first_and_ended_ones_are_left_out() -> None:
    plans = [
        subscription(1, id="ended", status="canceled"),
        subscription(1, id="paused", status="paused"),
        subscription(1, id="hold", collection_paused="void"),
        subscription(1, id="older", stp_created_at=NOW - 30 * DAY),
        subscription(1, id="newer"),
    ]
    assert [plan.id for plan in plans_of(plans, at=NOW, policy=POLICY)][:2] == ["older", "newer"]
    assert {plan.id for plan in plans_of(plans, at=NOW, policy=POLICY)} == {"older", "newer", "hold", "paused"}
