"""The state of a customer, as apps ask for it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.stripe_double import Settings
from shared.messages.billing.customer_state import GetCustomerState
from shared.messages.billing.subscriptions import GetSubscriptionState
from tests.billing.conftest import ADA, MONTH, Shop, post

STATE = GetSubscriptionState(user_id="user_ada")
DAY = timedelta(days=1)
NONE = {
    "status": "none",
    "entitled": False,
    "required_action": None,
    "payment_url": None,
    "billing_portal_url": None,
    "start_date": None,
    "end_date": None,
    "grace_ends_at": None,
    "cancel_at": None,
    "cancel_type": None,
    "cancelled_at": None,
}
Made = dict[str, Any]


async def advance(shop: Shop, time: timedelta) -> None:
    """Advance the clocks of Stripe and billing, and deliver all events."""
    await shop.double.clock.advance(time)
    shop.harness.now = max(shop.harness.now, shop.double.clock.time)
    await shop.deliver_all()


async def renewing(shop: Shop, method: str, wait: timedelta, **settings: Any) -> Made:
    """A subscription of Ada whose renewal is tried with a payment method."""
    shop.double.account.settings = Settings(**settings)
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.double.simulate.change_card(made["customer"], method)
    await advance(shop, wait)
    return made


async def subscribing(shop: Shop, **form: str) -> Made:
    """A subscription of Ada that is created with these parameters."""
    customer = await post(shop.double, "/v1/customers", email="ada@example.com", **{"metadata[user_id]": "user_ada"})
    fields = {"customer": customer["id"], "items[0][price]": shop.price, **form}
    made = await post(shop.double, "/v1/subscriptions", **fields)
    await advance(shop, timedelta(seconds=1))
    return made


async def past_due(shop: Shop) -> Made:
    return await renewing(shop, "pm_card_chargeCustomerFail", MONTH)


async def unpaid(shop: Shop) -> Made:
    return await renewing(shop, "pm_card_chargeCustomerFail", 50 * DAY, after_retries="unpaid")


async def unauthenticated(shop: Shop) -> Made:
    return await renewing(shop, "pm_card_authenticationRequired", MONTH)


async def incomplete(shop: Shop) -> Made:
    return await subscribing(shop, payment_behavior="default_incomplete")


async def paused(shop: Shop) -> Made:
    behavior = {"trial_settings[end_behavior][missing_payment_method]": "pause"}
    made = await subscribing(shop, trial_period_days="14", **behavior)
    await advance(shop, 15 * DAY)
    return made


async def paused_by_request(shop: Shop) -> Made:
    made = await active(shop)
    shop.double.simulate.pause(made["id"])
    await shop.deliver_all()
    return made


async def active(shop: Shop) -> Made:
    return await renewing(shop, "pm_card_visa", MONTH)


async def on_hold(shop: Shop) -> Made:
    made = await active(shop)
    shop.double.simulate.pause_collection(made["id"])
    await shop.deliver_all()
    return made


async def over(shop: Shop) -> Made:
    """A subscription of whose renewal nothing is known."""
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.harness.now += MONTH
    return made


@pytest.mark.parametrize(
    ("life", "status", "entitled", "action"),
    [
        (active, "active", True, None),
        (on_hold, "active", False, None),
        (over, "active", False, None),
        (past_due, "past_due", True, "payment"),
        (unauthenticated, "past_due", True, "authentication"),
        (unpaid, "unpaid", False, "payment"),
        (incomplete, "incomplete", False, "payment"),
        (paused, "paused", False, "payment_method"),
        (paused_by_request, "paused", False, None),
    ],
)
async def test_every_status_says_whether_it_entitles_and_what_to_do(
    life: Callable[[Shop], Any],
    status: str,
    entitled: bool,  # noqa: FBT001
    action: str | None,
    shop: Shop,
) -> None:
    made = await life(shop)
    calls = len(shop.double.log)
    state = await shop.harness.deliver(STATE)
    assert (state["status"], state["entitled"], state["required_action"]) == (status, entitled, action)
    to_pay = action in ("payment", "authentication")
    assert state["payment_url"] == (f"link:payment:{made['id']}" if to_pay else None)
    assert state["billing_portal_url"] == "link:portal"
    assert (state["grace_ends_at"] is not None) == (status in ("past_due", "unpaid"))
    assert len(shop.double.log) == calls


async def test_a_person_who_never_bought_has_the_status_none(shop: Shop) -> None:
    assert await shop.harness.deliver(STATE) == NONE


async def test_after_the_end_the_status_is_none_with_a_portal_link(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.cancel(made["id"], at="now")
    await shop.deliver_all()
    assert await shop.harness.deliver(STATE) == {**NONE, "billing_portal_url": "link:portal"}


async def test_a_setting_puts_a_session_of_stripe_into_each_state(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(stripe_portal_in_status=True)
    await active(shop)
    assert (await shop.harness.deliver(STATE))["billing_portal_url"].startswith(f"{shop.double.url}/p/session/")


async def catalogued(shop: Shop) -> None:
    """Give the product two features, and read it and its price."""
    product = shop.double.object("price", shop.price)["product"]
    await post(shop.double, f"/v1/products/{product}", **{"metadata[features]": "api,sso"})
    await post(shop.double, f"/v1/prices/{shop.price}", lookup_key="monthly")
    await shop.deliver_all()


CUSTOMER = GetCustomerState(user_id="user_ada")


async def test_the_state_of_a_customer_has_features_plan_and_next_invoice_without_a_call_to_stripe(shop: Shop) -> None:
    await catalogued(shop)
    await subscribing(shop, **{"items[0][quantity]": "3", "trial_period_days": "14"})
    calls = len(shop.double.log)
    state = await shop.harness.deliver(CUSTOMER)
    assert len(shop.double.log) == calls
    (plan,) = state.pop("plans")
    assert state == {
        "status": "trialing",
        "entitled": True,
        "features": ["api", "sso"],
        "ent_v": 1,
        "billing_portal_url": "link:portal",
    }
    (item,) = plan["items"]
    assert {name: item[name] for name in ("product_name", "quantity", "unit_amount", "currency", "interval")} == {
        "product_name": "Beak",
        "quantity": 3,
        "unit_amount": 500,
        "currency": "usd",
        "interval": "month",
    }
    assert (item["lookup_key"], item["usage_type"]) == ("monthly", "licensed")
    assert (plan["trial_ends_at"], plan["trial_days_left"]) == (plan["end_date"], 14)
    assert plan["next_invoice"] == {"date": plan["end_date"], "amount": 1500, "currency": "usd"}
    assert (plan["will_renew"], plan["required_action"], plan["payment_url"]) == (True, None, None)


@pytest.mark.parametrize(
    ("life", "status", "features", "action"),
    [
        (past_due, "past_due", ["api", "sso"], "payment"),
        (unauthenticated, "past_due", ["api", "sso"], "authentication"),
        (unpaid, "unpaid", [], "payment"),
        (paused, "paused", [], "payment_method"),
        (paused_by_request, "paused", [], None),
        (on_hold, "active", [], None),
        (over, "active", [], None),
    ],
)
async def test_the_state_of_a_customer_says_what_to_do(
    life: Callable[[Shop], Any], status: str, features: list[str], action: str | None, shop: Shop
) -> None:
    await catalogued(shop)
    made = await life(shop)
    state = await shop.harness.deliver(CUSTOMER)
    (plan,) = state["plans"]
    assert (state["status"], state["features"], plan["required_action"]) == (status, features, action)
    assert (state["entitled"], plan["entitled"]) == (bool(features), bool(features))
    to_pay = action in ("payment", "authentication")
    assert plan["payment_url"] == (f"link:payment:{made['id']}" if to_pay else None)


async def test_a_cancelled_plan_has_no_next_invoice(shop: Shop) -> None:
    await catalogued(shop)
    made = await active(shop)
    shop.double.simulate.cancel(made["id"])
    await shop.deliver_all()
    (plan,) = (await shop.harness.deliver(CUSTOMER))["plans"]
    assert (plan["will_renew"], plan["next_invoice"], plan["cancel_at"]) == (False, None, plan["end_date"])


async def test_a_person_who_never_bought_has_the_state_none(shop: Shop) -> None:
    assert await shop.harness.deliver(CUSTOMER) == {
        "status": "none",
        "entitled": False,
        "features": [],
        "ent_v": 0,
        "plans": [],
        "billing_portal_url": None,
    }


async def test_a_user_of_before_the_upgrade_has_features_before_the_first_refresh(shop: Shop) -> None:
    await catalogued(shop)
    await active(shop)
    await shop.harness.database["entitlements"].delete_many({})
    state = await shop.harness.deliver(CUSTOMER)
    assert (state["features"], state["ent_v"]) == (["api", "sso"], 0)
