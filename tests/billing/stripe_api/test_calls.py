"""Timeouts, retries, rate limits and priorities of calls to Stripe."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from services.billing.stripe_api import account, calls
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.calls import KeySpent, StripeRefused, Timeouts
from services.stripe_double import API_VERSION, FaultKind, StripeDouble
from shared.messages.billing.errors import StripeUnavailable
from tests.billing.conftest import API_KEY

TIMEOUTS = Timeouts(attempt=0.3, call=2.0, portal=0.4, retry_pause=0.01)
CUSTOMER: dict[str, Any] = {"email": "ada@example.com", "user_id": "user_1"}
RATE = 80.0
PORTAL = "https://getbeak.app/"


@pytest.fixture
async def stripe(double: StripeDouble) -> AsyncIterator[Stripe]:
    async with account.open_account(
        api_key=SecretStr(API_KEY), api_base=double.url, rate=2000, portal_return_url=PORTAL, timeouts=TIMEOUTS
    ) as opened:
        yield opened


@pytest.fixture
async def limited(double: StripeDouble) -> AsyncIterator[Stripe]:
    """An account with a rate of 80 calls a second."""
    timeouts = Timeouts(attempt=2.0, call=5.0, retry_pause=0.01)
    async with account.open_account(
        api_key=SecretStr(API_KEY), api_base=double.url, rate=RATE, portal_return_url=PORTAL, timeouts=timeouts
    ) as opened:
        yield opened


async def test_billing_the_library_and_the_double_have_the_same_api_version() -> None:
    assert calls.API_VERSION == API_VERSION == calls.stripe.StripeClient("sk_test_1")._requestor.stripe_version


async def test_all_pages_of_a_list_are_read(
    stripe: Stripe, double: StripeDouble, price: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PAGE_SIZE", 2)
    customer = double.simulate.checkout(price, email="ada@example.com")["customer"]
    for _ in range(4):
        double.simulate.checkout(price, customer=customer)
    assert len(set(await stripe.subscription_ids(customer))) == 5


@pytest.mark.parametrize(
    "kind", [FaultKind.SERVER_ERROR, FaultKind.CONFLICT, FaultKind.RATE_LIMIT, FaultKind.RESET, FaultKind.HANG]
)
async def test_a_temporary_failure_is_retried_under_the_same_key(
    kind: FaultKind, stripe: Stripe, double: StripeDouble
) -> None:
    fault = double.faults.add(kind, times=2, path="/v1/customers")
    made = await stripe.create_customer(**CUSTOMER, key="trial_1:customer")
    assert fault.hits == 2
    assert [customer["id"] for customer in double.objects("customer")] == [made]
    assert {call.idempotency_key for call in double.log} == {"trial_1:customer"}


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.HANG])
async def test_a_retry_after_a_lost_response_creates_nothing_twice(
    kind: FaultKind, stripe: Stripe, double: StripeDouble
) -> None:
    fault = double.faults.add(kind, after_work=True, times=1, path="/v1/customers")
    made = await stripe.create_customer(**CUSTOMER, key="trial_1:customer")
    assert fault.hits == 1
    assert [customer["id"] for customer in double.objects("customer")] == [made]


async def test_a_lasting_failure_is_unavailable_after_three_attempts(stripe: Stripe, double: StripeDouble) -> None:
    fault = double.faults.add(FaultKind.SERVER_ERROR)
    with pytest.raises(StripeUnavailable):
        await stripe.customer("cus_1")
    assert fault.hits == 3


async def test_interactive_calls_end_at_their_deadline(stripe: Stripe, double: StripeDouble) -> None:
    double.faults.add(FaultKind.HANG)
    async with asyncio.timeout(10):
        with pytest.raises(StripeUnavailable):
            await stripe.within(0.1).customer("cus_1")


async def test_during_an_outage_the_breaker_rejects_calls_unmade(stripe: Stripe, double: StripeDouble) -> None:
    async with double.outage():
        for _ in range(3):
            with pytest.raises(StripeUnavailable):
                await stripe.customer("cus_1")
        made = len(double.log)
    with pytest.raises(StripeUnavailable):
        await stripe.customer("cus_1")
    assert len(double.log) == made


async def test_a_failure_stored_under_a_key_means_that_the_key_is_spent(stripe: Stripe, double: StripeDouble) -> None:
    fault = double.faults.add(FaultKind.SERVER_ERROR, stored=True, times=1, path="/v1/customers")
    with pytest.raises(KeySpent):
        await stripe.create_customer(**CUSTOMER, key="trial_1:customer")
    assert fault.hits == 1


async def test_other_parameters_under_a_key_mean_that_the_key_is_spent(stripe: Stripe) -> None:
    await stripe.create_customer(**CUSTOMER, key="trial_1:customer")
    with pytest.raises(KeySpent):
        await stripe.create_customer(**{**CUSTOMER, "email": "eve@example.com"}, key="trial_1:customer")


async def test_an_invalid_request_is_refused_with_code_and_parameter(stripe: Stripe) -> None:
    customer = await stripe.create_customer(**CUSTOMER, key="1")
    with pytest.raises(StripeRefused) as refused:
        await stripe.create_trial(
            customer_id=customer, price="price_nobody", user_id="user_1", trial_id="trial_1", key="2"
        )
    assert refused.value.code == "resource_missing"
    assert refused.value.param == "items[0][price]"


async def test_a_rejected_api_key_is_unavailable_without_a_retry(double: StripeDouble) -> None:
    async with account.open_account(
        api_key=SecretStr("sk_test_wrong"),
        api_base=double.url,
        rate=2000,
        portal_return_url="https://getbeak.app/",
        timeouts=TIMEOUTS,
    ) as stripe:
        with pytest.raises(StripeUnavailable):
            await stripe.customer("cus_1")
    assert len(double.log) == 1


@pytest.mark.parametrize(
    ("status", "header", "attempts"),
    [(429, None, 3), (429, "false", 1), (500, None, 3), (500, "false", 1), (400, "true", 3), (400, None, 1)],
)
async def test_the_header_about_retries_is_obeyed(
    status: int, header: str | None, attempts: int, stripe: Stripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0

    async def refuse(*_: Any, **__: Any) -> Any:
        nonlocal made
        made += 1
        headers = {} if header is None else {"stripe-should-retry": header}
        raise calls.stripe.StripeError("no", http_status=status, headers=headers)

    monkeypatch.setattr(stripe.calls._client, "raw_request_async", refuse)
    with pytest.raises((StripeUnavailable, StripeRefused)):
        await stripe.customer("cus_1")
    assert made == attempts


async def test_portal_links_and_api_keys_are_never_logged(
    stripe: Stripe, double: StripeDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    customer = await stripe.create_customer(**CUSTOMER, key="1")
    assert await stripe.portal_url(customer) is not None
    double.faults.add(FaultKind.SERVER_ERROR)
    assert await stripe.portal_url(customer) is None
    assert "billing.stripe.com" not in caplog.text
    assert API_KEY not in caplog.text


async def test_many_reads_do_not_delay_an_interactive_call(double: StripeDouble, price: str) -> None:
    made = double.simulate.checkout(price, email="ada@example.com")
    timeouts = Timeouts(attempt=0.3, call=0.5, portal=0.5, retry_pause=0.01)
    async with account.open_account(
        api_key=SecretStr(API_KEY),
        api_base=double.url,
        rate=20,
        portal_return_url="https://getbeak.app/",
        timeouts=timeouts,
    ) as stripe:
        storm = [asyncio.create_task(stripe.subscription(made["id"])) for _ in range(200)]
        await asyncio.sleep(0)
        assert await stripe.portal_url(made["customer"]) is not None
        outcomes = await asyncio.gather(*storm, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, StripeUnavailable)]
    assert len(refused) > 150
    assert len([call for call in double.log if call.method == "GET"]) <= 20


async def test_low_priority_calls_yield_to_all_others(limited: Stripe) -> None:
    order: list[str] = []

    async def call(stripe: Stripe, name: str) -> None:
        await stripe.customer("cus_none")
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(90):
            group.create_task(call(limited, "webhook"))
        await asyncio.sleep(0.1)
        group.create_task(call(limited.low_priority(), "comparison"))
    assert order.index("comparison") >= 85


async def test_low_priority_calls_use_a_quarter_of_the_rate_at_most(limited: Stripe) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(limited.low_priority().customer("cus_none") for _ in range(30)))
    # The tokens of a quarter second were saved up.
    assert loop.time() - began >= 30 / (RATE / 4) - 0.3


async def test_a_low_priority_call_that_gets_no_token_in_time_is_unavailable(limited: Stripe) -> None:
    limited.calls.timeouts = Timeouts(attempt=2.0, call=0.3, retry_pause=0.01)
    yielding = limited.low_priority()
    limited.calls.timeouts = Timeouts(attempt=2.0, call=5.0, retry_pause=0.01)
    storm = [asyncio.create_task(limited.customer("cus_none")) for _ in range(90)]
    await asyncio.sleep(0.05)
    with pytest.raises(StripeUnavailable):
        await yielding.customer("cus_none")
    await asyncio.gather(*storm)
