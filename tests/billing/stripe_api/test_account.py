"""Objects read from and created in Stripe."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from services.billing.stripe_api import account
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.calls import Timeouts
from services.stripe_double import FaultKind, StripeDouble
from tests.billing.conftest import API_KEY, post

TIMEOUTS = Timeouts(attempt=0.3, call=2.0, portal=0.4, retry_pause=0.01)
CUSTOMER: dict[str, Any] = {"email": "ada@example.com", "user_id": "user_1"}


@pytest.fixture
async def stripe(double: StripeDouble) -> AsyncIterator[Stripe]:
    async with account.open_account(
        api_key=SecretStr(API_KEY),
        api_base=double.url,
        rate=2000,
        portal_return_url="https://getbeak.app/",
        timeouts=TIMEOUTS,
    ) as opened:
        yield opened


async def test_a_subscription_is_read_with_customer_and_periods(
    stripe: Stripe, double: StripeDouble, price: str
) -> None:
    made = double.simulate.checkout(price, email="ada@example.com", trial_days=14, metadata={"user_id": "user_1"})
    found = await stripe.subscription(made["id"])
    assert found is not None
    assert (found.status, found.user_id, found.customer.email) == ("trialing", "user_1", "ada@example.com")
    assert found.period_end.timestamp() == made["items"]["data"][0]["current_period_end"]
    assert found.trial_end == found.period_end
    assert not found.livemode


async def test_the_coupons_of_a_subscription_are_read(stripe: Stripe, double: StripeDouble, price: str) -> None:
    await post(double, "/v1/coupons", id="staff", percent_off="100", duration="forever")
    made = double.simulate.checkout(price, email="ada@example.com", coupon="staff")
    found = await stripe.subscription(made["id"])
    assert found is not None
    assert found.coupons == {"staff"}


async def test_items_beyond_the_tenth_are_read(stripe: Stripe, double: StripeDouble) -> None:
    form: dict[str, Any] = {"currency": "usd", "product_data[name]": "One of many"}
    prices = [
        (await post(double, "/v1/prices", **form, unit_amount=str(100 + number), **{"recurring[interval]": interval}))[
            "id"
        ]
        for number, interval in enumerate(["month"] * 11 + ["year"])
    ]
    customer = await post(double, "/v1/customers", email="ada@example.com")
    items = {f"items[{number}][price]": price for number, price in enumerate(prices)}
    made = await post(double, "/v1/subscriptions", customer=customer["id"], trial_period_days="3", **items)
    assert made["items"]["has_more"]
    found = await stripe.subscription(made["id"])
    assert found is not None
    listed = [call for call in double.log if call.path == "/v1/subscription_items"]
    assert len(listed) == 1
    assert found.product_id == made["items"]["data"][0]["price"]["product"]


async def test_a_missing_object_is_none(stripe: Stripe) -> None:
    assert await stripe.subscription("sub_none") is None
    assert await stripe.customer("cus_none") is None


async def test_a_deleted_customer_is_marked_as_deleted(stripe: Stripe, double: StripeDouble, price: str) -> None:
    made = double.simulate.checkout(price, email="ada@example.com")
    double.simulate.delete_customer(made["customer"])
    customer = await stripe.customer(made["customer"])
    assert customer is not None
    assert (customer.deleted, customer.email) == (True, None)
    found = await stripe.subscription(made["id"])
    assert found is not None
    assert (found.status, found.customer.deleted) == ("canceled", True)


async def test_ended_subscriptions_are_listed(stripe: Stripe, double: StripeDouble, price: str) -> None:
    first = double.simulate.checkout(price, email="ada@example.com")
    double.simulate.cancel(first["id"], at="now")
    second = double.simulate.checkout(price, customer=first["customer"])
    assert await stripe.subscription_ids(first["customer"]) == [second["id"], first["id"]]


async def test_a_trial_without_a_card_ends_in_cancellation(stripe: Stripe, double: StripeDouble, price: str) -> None:
    customer = await stripe.create_customer(**CUSTOMER, key="1")
    made = await stripe.create_trial(
        customer_id=customer, price=price, user_id="user_1", trial_id="trial_1", key="trial_1:subscription"
    )
    found = double.object("subscription", made)
    assert found["status"] == "trialing"
    assert found["trial_end"] - found["trial_start"] == 14 * 86400
    assert found["trial_settings"]["end_behavior"]["missing_payment_method"] == "cancel"
    assert found["metadata"] == {"user_id": "user_1", "trial_id": "trial_1"}


async def test_customer_and_subscription_of_a_trial_are_found_in_lists(
    stripe: Stripe, double: StripeDouble, price: str
) -> None:
    await stripe.create_customer(**{**CUSTOMER, "user_id": "user_0"}, key="0")
    customer = await stripe.create_customer(**CUSTOMER, key="1")
    assert await stripe.customer_id_of("user_1", "ada@example.com") == customer
    assert await stripe.customer_id_of("user_2", "ada@example.com") is None
    assert await stripe.customer_id_of("user_1", None) is None
    double.simulate.checkout(price, customer=customer)
    made = await stripe.create_trial(
        customer_id=customer, price=price, user_id="user_1", trial_id="trial_1", key="trial_1:subscription"
    )
    assert await stripe.subscription_ids(customer, trial_id="trial_1") == [made]


async def test_a_cancelled_duplicate_names_the_kept_subscription_in_stripe(
    stripe: Stripe, double: StripeDouble, price: str
) -> None:
    made = double.simulate.checkout(price, email="ada@example.com")
    await stripe.cancel_duplicate(made["id"], kept_subscription_id="ours_1", key="k")
    found = await stripe.subscription(made["id"])
    assert found is not None
    assert (found.status, found.duplicate_of, found.cancel_type) == ("canceled", "ours_1", "immediate")
    await stripe.cancel_duplicate(made["id"], kept_subscription_id="ours_2", key="k2")
    cancelled = [call for call in double.log if call.method == "DELETE"]
    assert cancelled[0].params["prorate"] == cancelled[0].params["invoice_now"] == "true"


async def test_a_portal_link_is_created(stripe: Stripe, double: StripeDouble) -> None:
    customer = await stripe.create_customer(**CUSTOMER, key="1")
    link = await stripe.portal_url(customer)
    assert link is not None
    assert link.startswith(f"{double.url}/p/session/")


@pytest.mark.parametrize("kind", [FaultKind.HANG, FaultKind.SERVER_ERROR, FaultKind.RESET, FaultKind.RATE_LIMIT])
async def test_during_an_outage_there_is_no_portal_link_and_no_error(
    kind: FaultKind, stripe: Stripe, double: StripeDouble
) -> None:
    customer = await stripe.create_customer(**CUSTOMER, key="1")
    double.faults.add(kind)
    async with asyncio.timeout(TIMEOUTS.portal + 0.3):
        assert await stripe.portal_url(customer) is None


async def test_a_missing_customer_has_no_portal_link(stripe: Stripe) -> None:
    assert await stripe.portal_url("cus_none") is None
