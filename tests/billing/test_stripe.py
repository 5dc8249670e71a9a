import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.billing.stripe_api import account as adapter
from services.billing.stripe_api import calls
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.calls import KeySpent, Patience, StripeRefused
from services.billing.stripe_api.parsing import subscription_of
from services.stripe_double import API_VERSION, FaultKind, StripeDouble
from shared.messages.billing.errors import StripeUnavailable
from tests.billing.conftest import API_KEY, post

FAST = Patience(attempt=0.3, call=2.0, portal=0.4, pause=0.01)
ADA: dict[str, Any] = {"email": "ada@example.com", "user_id": "user_1", "trial_id": "trial_1"}


@pytest.fixture
async def stripe(double: StripeDouble) -> AsyncIterator[Stripe]:
    async with adapter.opened(
        api_key=API_KEY, api_base=double.url, rate=2000, portal_return_url="https://getbeak.app/", patience=FAST
    ) as account:
        yield account


async def test_the_pinned_version_is_the_one_that_the_library_and_the_double_speak() -> None:
    assert calls.API_VERSION == API_VERSION == calls.stripe.StripeClient("sk_test_1")._requestor.stripe_version


async def test_a_subscription_is_read_with_its_customer_and_its_periods(
    stripe: Stripe, double: StripeDouble, price: str
) -> None:
    made = double.simulate.checkout(price, email="ada@example.com", trial_days=14, metadata={"user_id": "user_1"})
    found = await stripe.subscription(made["id"])
    assert found is not None
    assert (found.status, found.user_id, found.customer.email) == ("trialing", "user_1", "ada@example.com")
    assert found.period_end.timestamp() == made["items"]["data"][0]["current_period_end"]
    assert found.trial_end == found.period_end
    assert not found.livemode


async def test_the_coupons_on_a_subscription_are_seen(stripe: Stripe, double: StripeDouble, price: str) -> None:
    await post(double, "/v1/coupons", id="staff", percent_off="100", duration="forever")
    made = double.simulate.checkout(price, email="ada@example.com", coupon="staff")
    found = await stripe.subscription(made["id"])
    assert found is not None
    assert found.coupons == {"staff"}


async def test_items_beyond_the_tenth_are_read_and_the_longest_period_counts(
    stripe: Stripe, double: StripeDouble
) -> None:
    form: dict[str, Any] = {"currency": "usd", "product_data[name]": "One of many"}
    prices = [
        (await post(double, "/v1/prices", **form, unit_amount=str(100 + number), **{"recurring[interval]": interval}))[
            "id"
        ]
        for number, interval in enumerate(["month"] * 11 + ["year"])
    ]
    customer = await post(double, "/v1/customers", email="ada@example.com")
    wanted = {f"items[{number}][price]": price for number, price in enumerate(prices)}
    made = await post(double, "/v1/subscriptions", customer=customer["id"], trial_period_days="3", **wanted)
    assert made["items"]["has_more"]
    found = await stripe.subscription(made["id"])
    assert found is not None
    listed = [call for call in double.log if call.path == "/v1/subscription_items"]
    assert len(listed) == 1
    assert found.product_id == made["items"]["data"][0]["price"]["product"]


def test_periods_reach_over_all_items() -> None:
    def item(start: int, end: int) -> dict[str, Any]:
        return {"current_period_start": start, "current_period_end": end, "price": {"product": "prod_1"}}

    found = {
        "id": "sub_1",
        "customer": {"id": "cus_1", "deleted": True},
        "status": "active",
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
        "livemode": True,
    }
    read = subscription_of(found, [item(20, 30), item(10, 99), item(15, 40)])
    assert (read.period_start.timestamp(), read.period_end.timestamp()) == (10, 99)
    assert (read.customer.deleted, read.customer.email) == (True, None)


async def test_what_stripe_does_not_have_is_none(stripe: Stripe) -> None:
    assert await stripe.subscription("sub_nobody") is None
    assert await stripe.customer("cus_nobody") is None


async def test_a_deleted_customer_says_so(stripe: Stripe, double: StripeDouble, price: str) -> None:
    made = double.simulate.checkout(price, email="ada@example.com")
    double.simulate.delete_customer(made["customer"])
    customer = await stripe.customer(made["customer"])
    assert customer is not None
    assert (customer.deleted, customer.email) == (True, None)
    found = await stripe.subscription(made["id"])
    assert found is not None
    assert (found.status, found.customer.deleted) == ("canceled", True)


async def test_ended_subscriptions_are_listed_too(stripe: Stripe, double: StripeDouble, price: str) -> None:
    first = double.simulate.checkout(price, email="ada@example.com")
    double.simulate.cancel(first["id"], at="now")
    second = double.simulate.checkout(price, customer=first["customer"])
    assert await stripe.subscription_ids(first["customer"]) == [second["id"], first["id"]]


async def test_lists_longer_than_a_page_are_read_to_their_end(
    stripe: Stripe, double: StripeDouble, price: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PAGE", 2)
    customer = double.simulate.checkout(price, email="ada@example.com")["customer"]
    for _ in range(4):
        double.simulate.checkout(price, customer=customer)
    assert len(set(await stripe.subscription_ids(customer))) == 5


@pytest.mark.parametrize(
    "trouble", [FaultKind.SERVER_ERROR, FaultKind.CONFLICT, FaultKind.RATE_LIMIT, FaultKind.RESET, FaultKind.HANG]
)
async def test_a_passing_trouble_is_outlasted_under_the_same_key(
    trouble: FaultKind, stripe: Stripe, double: StripeDouble
) -> None:
    fault = double.faults.add(trouble, times=2, path="/v1/customers")
    made = await stripe.create_customer(**ADA, key="trial_1:customer")
    assert fault.hits == 2
    assert [customer["id"] for customer in double.objects("customer")] == [made]
    assert {call.idempotency_key for call in double.log} == {"trial_1:customer"}


@pytest.mark.parametrize("trouble", [FaultKind.RESET, FaultKind.HANG])
async def test_work_that_was_done_before_the_trouble_is_not_done_again(
    trouble: FaultKind, stripe: Stripe, double: StripeDouble
) -> None:
    fault = double.faults.add(trouble, after_work=True, times=1, path="/v1/customers")
    made = await stripe.create_customer(**ADA, key="trial_1:customer")
    assert fault.hits == 1
    assert [customer["id"] for customer in double.objects("customer")] == [made]


async def test_lasting_trouble_ends_as_unavailable_after_three_attempts(stripe: Stripe, double: StripeDouble) -> None:
    fault = double.faults.add(FaultKind.SERVER_ERROR)
    with pytest.raises(StripeUnavailable):
        await stripe.customer("cus_1")
    assert fault.hits == 3


async def test_calls_end_within_the_time_they_are_given(stripe: Stripe, double: StripeDouble) -> None:
    double.faults.add(FaultKind.HANG)
    async with asyncio.timeout(0.3):
        with pytest.raises(StripeUnavailable):
            await stripe.within(0.1).customer("cus_1")


async def test_while_stripe_is_down_calls_are_refused_without_being_made(stripe: Stripe, double: StripeDouble) -> None:
    async with double.outage():
        for _ in range(3):
            with pytest.raises(StripeUnavailable):
                await stripe.customer("cus_1")
        calls = len(double.log)
    with pytest.raises(StripeUnavailable):
        await stripe.customer("cus_1")
    assert len(double.log) == calls


async def test_a_stored_failure_is_known_as_a_spent_key(stripe: Stripe, double: StripeDouble) -> None:
    fault = double.faults.add(FaultKind.SERVER_ERROR, stored=True, times=1, path="/v1/customers")
    with pytest.raises(KeySpent):
        await stripe.create_customer(**ADA, key="trial_1:customer")
    assert fault.hits == 1


async def test_other_parameters_under_a_key_are_known_as_a_spent_key(stripe: Stripe) -> None:
    await stripe.create_customer(**ADA, key="trial_1:customer")
    with pytest.raises(KeySpent):
        await stripe.create_customer(**{**ADA, "email": "eve@example.com"}, key="trial_1:customer")


async def test_what_stripe_takes_as_wrong_is_refused_with_its_code(stripe: Stripe) -> None:
    customer = await stripe.create_customer(**ADA, key="1")
    with pytest.raises(StripeRefused) as refused:
        await stripe.create_trial(
            customer_id=customer, price="price_nobody", user_id="user_1", trial_id="trial_1", key="2"
        )
    assert refused.value.code == "resource_missing"
    assert refused.value.param == "items[0][price]"


async def test_a_refused_key_is_unavailable_and_not_tried_again(double: StripeDouble) -> None:
    async with adapter.opened(
        api_key="sk_test_wrong", api_base=double.url, rate=2000, portal_return_url="https://getbeak.app/", patience=FAST
    ) as stripe:
        with pytest.raises(StripeUnavailable):
            await stripe.customer("cus_1")
    assert len(double.log) == 1


async def test_a_trial_ends_in_cancellation_when_nobody_gave_a_card(
    stripe: Stripe, double: StripeDouble, price: str
) -> None:
    customer = await stripe.create_customer(**ADA, key="1")
    made = await stripe.create_trial(
        customer_id=customer, price=price, user_id="user_1", trial_id="trial_1", key="trial_1:subscription"
    )
    found = double.object("subscription", made)
    assert found["status"] == "trialing"
    assert found["trial_end"] - found["trial_start"] == 14 * 86400
    assert found["trial_settings"]["end_behavior"]["missing_payment_method"] == "cancel"
    assert found["metadata"] == {"user_id": "user_1", "trial_id": "trial_1"}


async def test_what_was_made_for_a_trial_is_found_in_lists(stripe: Stripe, double: StripeDouble, price: str) -> None:
    await stripe.create_customer(**{**ADA, "trial_id": "trial_0"}, key="0")
    customer = await stripe.create_customer(**ADA, key="1")
    assert await stripe.trial_customer_id("ada@example.com", "trial_1") == customer
    assert await stripe.trial_customer_id("ada@example.com", "trial_2") is None
    double.simulate.checkout(price, customer=customer)
    made = await stripe.create_trial(
        customer_id=customer, price=price, user_id="user_1", trial_id="trial_1", key="trial_1:subscription"
    )
    assert await stripe.subscription_ids(customer, trial_id="trial_1") == [made]


async def test_a_cancelled_duplicate_says_in_stripe_which_one_was_kept(
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


async def test_a_portal_link_is_given(stripe: Stripe) -> None:
    customer = await stripe.create_customer(**ADA, key="1")
    link = await stripe.portal_url(customer)
    assert link is not None
    assert link.startswith("https://billing.stripe.com/")


@pytest.mark.parametrize("trouble", [FaultKind.HANG, FaultKind.SERVER_ERROR, FaultKind.RESET, FaultKind.RATE_LIMIT])
async def test_without_stripe_there_is_no_portal_link_and_no_error(
    trouble: FaultKind, stripe: Stripe, double: StripeDouble
) -> None:
    customer = await stripe.create_customer(**ADA, key="1")
    double.faults.add(trouble)
    async with asyncio.timeout(FAST.portal + 0.3):
        assert await stripe.portal_url(customer) is None


async def test_no_portal_link_for_a_customer_that_stripe_does_not_have(stripe: Stripe) -> None:
    assert await stripe.portal_url("cus_nobody") is None


async def test_no_link_and_no_key_is_ever_logged(
    stripe: Stripe, double: StripeDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    customer = await stripe.create_customer(**ADA, key="1")
    assert await stripe.portal_url(customer) is not None
    double.faults.add(FaultKind.SERVER_ERROR)
    assert await stripe.portal_url(customer) is None
    assert "billing.stripe.com" not in caplog.text
    assert API_KEY not in caplog.text


@pytest.mark.parametrize(
    ("status", "advice", "attempts"),
    [(429, None, 3), (429, "false", 1), (500, None, 3), (500, "false", 1), (400, "true", 3), (400, None, 1)],
)
async def test_what_stripe_says_about_repeating_is_heard(
    status: int, advice: str | None, attempts: int, stripe: Stripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0

    async def refuse(*_: Any, **__: Any) -> Any:
        nonlocal made
        made += 1
        headers = {} if advice is None else {"stripe-should-retry": advice}
        raise calls.stripe.StripeError("no", http_status=status, headers=headers)

    monkeypatch.setattr(stripe.calls._client, "raw_request_async", refuse)
    with pytest.raises((StripeUnavailable, StripeRefused)):
        await stripe.customer("cus_1")
    assert made == attempts


async def test_a_storm_of_reading_leaves_room_for_whoever_waits(double: StripeDouble, price: str) -> None:
    made = double.simulate.checkout(price, email="ada@example.com")
    patience = Patience(attempt=0.3, call=0.5, portal=0.5, pause=0.01)
    async with adapter.opened(
        api_key=API_KEY, api_base=double.url, rate=20, portal_return_url="https://getbeak.app/", patience=patience
    ) as stripe:
        storm = [asyncio.create_task(stripe.subscription(made["id"])) for _ in range(200)]
        await asyncio.sleep(0)
        assert await stripe.portal_url(made["customer"]) is not None
        outcomes = await asyncio.gather(*storm, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, StripeUnavailable)]
    assert len(refused) > 150
    assert len([call for call in double.log if call.method == "GET"]) <= 20
