from typing import Any

from services.billing.stripe_api.parsing import parse_subscription


def test_the_period_of_a_subscription_spans_all_items() -> None:
    def item(start: int, end: int) -> dict[str, Any]:
        price = {"id": "price_1", "product": "prod_1", "unit_amount": 500, "recurring": {"usage_type": "licensed"}}
        return {
            "id": f"si_{start}",
            "current_period_start": start,
            "current_period_end": end,
            "price": price,
            "quantity": 2,
        }

    json = {
        "id": "sub_1",
        "customer": {"id": "cus_1", "deleted": True},
        "status": "active",
        "currency": "usd",
        "metadata": {},
        "created": 1,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": None,
        "ended_at": None,
        "trial_start": None,
        "trial_end": None,
        "discounts": [],
        "collection_method": "charge_automatically",
        "latest_invoice": None,
        "schedule": None,
        "livemode": True,
    }
    parsed = parse_subscription(json, [item(20, 30), item(10, 99), item(15, 40)])
    assert (parsed.period_start.timestamp(), parsed.period_end.timestamp()) == (10, 99)
    assert [item.stp_item_id for item in parsed.items] == ["si_20", "si_10", "si_15"]
    # Different periods can't be moved together.
    assert not parsed.extendable
    assert (parsed.customer.deleted, parsed.customer.email) == (True, None)
