"""What goes wrong with calls: seen by the caller, and on the account."""

import time
from collections.abc import AsyncIterator

import pytest
import stripe

from services.stripe_double import FaultKind, StripeDouble
from tests.stripe_double.shop import USES_STRIPE, Shop, client_of, open_shop

pytestmark = USES_STRIPE


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop(timeout=0.5) as shop:
        yield shop


@pytest.fixture
async def patient() -> AsyncIterator[Shop]:
    """A client that repeats a failed call twice, under the same key."""
    async with open_shop(client_retries=2, timeout=0.3) as shop:
        yield shop


def customers(shop: Shop) -> int:
    return len(shop.double.objects("customer"))


@pytest.mark.parametrize(
    ("trouble", "error", "status"),
    [
        (FaultKind.RATE_LIMIT, stripe.RateLimitError, 429),
        (FaultKind.SERVER_ERROR, stripe.APIError, 500),
        (FaultKind.CONFLICT, stripe.APIError, 409),
        (FaultKind.RESET, stripe.APIConnectionError, None),
        (FaultKind.HANG, stripe.APIConnectionError, None),
    ],
)
async def test_trouble_before_the_work_leaves_nothing_done(
    shop: Shop, trouble: FaultKind, error: type[stripe.StripeError], status: int | None
) -> None:
    fault = shop.double.faults.add(trouble, times=1)
    with pytest.raises(error):
        await shop.customer(None)
    assert (fault.hits, customers(shop)) == (1, 0)
    call = shop.double.log[-1]
    assert (call.status, call.fault, call.worked) == (status, trouble, False)
    await shop.customer(None)
    assert customers(shop) == 1


@pytest.mark.parametrize("trouble", [FaultKind.SERVER_ERROR, FaultKind.RESET, FaultKind.HANG])
async def test_trouble_after_the_work_leaves_it_done_and_the_key_gives_its_answer(
    shop: Shop, trouble: FaultKind
) -> None:
    shop.double.faults.add(trouble, after_work=True, times=1)
    with pytest.raises(stripe.StripeError):
        await shop.api.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
    assert (customers(shop), shop.double.log[-1].worked) == (1, True)
    again = await shop.api.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
    assert again.id == shop.double.objects("customer")[0]["id"]
    assert again.last_response.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("trouble", [FaultKind.SERVER_ERROR, FaultKind.RESET, FaultKind.HANG])
async def test_the_librarys_own_repetition_makes_one_object(patient: Shop, trouble: FaultKind) -> None:
    patient.double.faults.add(trouble, after_work=True, times=2, path="/v1/customers")
    await patient.customer(None)
    calls = [call for call in patient.double.log if call.path == "/v1/customers"]
    assert (customers(patient), len(calls), len({call.idempotency_key for call in calls})) == (1, 3, 1)


async def test_a_429_is_not_repeated_by_the_library(patient: Shop) -> None:
    patient.double.faults.add("rate_limit", times=1)
    with pytest.raises(stripe.RateLimitError):
        await patient.customer(None)


async def test_a_stored_500_is_replayed_until_the_key_is_forgotten(shop: Shop) -> None:
    shop.double.faults.add("server_error", stored=True, times=1)
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    assert (shop.double.log[-1].replayed, customers(shop)) == (True, 0)
    await shop.advance(hours=24)
    await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    assert customers(shop) == 1


@pytest.mark.parametrize("after_work", [False, True])
async def test_a_slow_answer_is_right_but_late(shop: Shop, after_work: bool) -> None:  # noqa: FBT001
    shop.double.faults.add("slow", times=1, seconds=0.2, after_work=after_work)
    began = time.monotonic()
    await shop.customer(None)
    assert time.monotonic() - began >= 0.2
    assert customers(shop) == 1


async def test_repeating_a_call_that_is_still_worked_on_is_a_conflict(shop: Shop) -> None:
    shop.double.faults.add("slow", times=1, seconds=1)
    with pytest.raises(stripe.APIConnectionError):
        await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    with pytest.raises(stripe.APIError) as refused:
        await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    assert refused.value.http_status == 409


async def test_faults_strike_chosen_calls_only(shop: Shop) -> None:
    shop.double.faults.add("server_error", method="POST", path="/v1/subscriptions*")
    await shop.customer()
    with pytest.raises(stripe.APIError):
        await shop.subscription()
    await shop.api.subscriptions.list_async()
    shop.double.faults.clear()
    await shop.subscription()


async def test_a_share_of_the_calls_fails_and_the_same_seed_fails_the_same() -> None:
    async def failures() -> list[int]:
        async with StripeDouble(api_key="sk_test_shop", seed=5) as double, client_of(double) as client:
            fault = double.faults.add("server_error", probability=0.3)
            failed = []
            for number in range(40):
                try:
                    await client.v1.customers.list_async()
                except stripe.APIError:
                    failed.append(number)
            assert fault.hits == len(failed)
            return failed

    first = await failures()
    assert 3 < len(first) < 25
    assert await failures() == first


async def test_in_an_outage_the_port_refuses_and_after_it_answers_again(shop: Shop) -> None:
    await shop.customer(None)
    url = shop.double.url
    async with shop.double.outage():
        with pytest.raises(stripe.APIConnectionError):  # the connection that the client kept is gone
            await shop.customer(None)
        with pytest.raises(stripe.APIConnectionError, match="ConnectError"):
            await shop.customer(None)
    await shop.customer(None)
    assert (shop.double.url, customers(shop)) == (url, 2)


def test_a_rate_limit_after_the_work_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="before any work"):
        StripeDouble().faults.add("rate_limit", after_work=True)
