import time
from collections.abc import AsyncIterator

import pytest
import stripe

from services.stripe_double import DeliveryFaults, FaultKind, StripeDouble
from tests.stripe_double.shop import Shop, client_of, open_shop


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop(timeout=2) as shop:
        yield shop


@pytest.fixture
async def retrying_shop() -> AsyncIterator[Shop]:
    """A client that retries a failed request twice with the same key."""
    async with open_shop(client_retries=2, timeout=2) as shop:
        yield shop


def customers(shop: Shop) -> int:
    return len(shop.double.objects("customer"))


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        (FaultKind.RATE_LIMIT, stripe.RateLimitError, 429),
        (FaultKind.SERVER_ERROR, stripe.APIError, 500),
        (FaultKind.CONFLICT, stripe.APIError, 409),
        (FaultKind.RESET, stripe.APIConnectionError, None),
        (FaultKind.HANG, stripe.APIConnectionError, None),
    ],
)
async def test_a_fault_before_execution_changes_nothing(
    shop: Shop, kind: FaultKind, error: type[stripe.StripeError], status: int | None
) -> None:
    fault = shop.double.faults.add(kind, times=1)
    with pytest.raises(error):
        await shop.customer(None)
    assert (fault.hits, customers(shop)) == (1, 0)
    call = shop.double.log[-1]
    assert (call.status, call.fault, call.executed) == (status, kind, False)
    await shop.customer(None)
    assert customers(shop) == 1


@pytest.mark.parametrize("kind", [FaultKind.SERVER_ERROR, FaultKind.RESET, FaultKind.HANG])
async def test_a_fault_after_execution_keeps_the_change_and_its_response(shop: Shop, kind: FaultKind) -> None:
    shop.double.faults.add(kind, after_work=True, times=1)
    with pytest.raises(stripe.StripeError):
        await shop.api.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
    assert (customers(shop), shop.double.log[-1].executed) == (1, True)
    again = await shop.api.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
    assert again.id == shop.double.objects("customer")[0]["id"]
    assert again.last_response.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("kind", [FaultKind.SERVER_ERROR, FaultKind.RESET, FaultKind.HANG])
async def test_the_librarys_own_retries_create_one_object(retrying_shop: Shop, kind: FaultKind) -> None:
    retrying_shop.double.faults.add(kind, after_work=True, times=2, path="/v1/customers")
    await retrying_shop.customer(None)
    calls = [call for call in retrying_shop.double.log if call.path == "/v1/customers"]
    assert (customers(retrying_shop), len(calls), len({call.idempotency_key for call in calls})) == (1, 3, 1)


async def test_the_library_does_not_retry_a_429(retrying_shop: Shop) -> None:
    retrying_shop.double.faults.add("rate_limit", times=1)
    with pytest.raises(stripe.RateLimitError):
        await retrying_shop.customer(None)


async def test_a_stored_500_is_replayed_until_the_key_expires(shop: Shop) -> None:
    shop.double.faults.add("server_error", stored=True, times=1)
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    assert (shop.double.log[-1].replayed, customers(shop)) == (True, 0)
    await shop.advance(hours=24)
    await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    assert customers(shop) == 1


@pytest.mark.parametrize("after_work", [False, True])
async def test_a_slow_response_is_correct(shop: Shop, *, after_work: bool) -> None:
    shop.double.faults.add("slow", times=1, seconds=0.2, after_work=after_work)
    started = time.monotonic()
    await shop.customer(None)
    assert time.monotonic() - started >= 0.2
    assert customers(shop) == 1


async def test_repeating_a_request_in_progress_is_a_conflict(shop: Shop) -> None:
    shop.double.faults.add("slow", times=1, seconds=6)
    with pytest.raises(stripe.APIConnectionError):
        await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    with pytest.raises(stripe.APIError) as caught:
        await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    assert caught.value.http_status == 409


async def test_a_fault_applies_only_to_matching_requests(shop: Shop) -> None:
    shop.double.faults.add("server_error", method="POST", path="/v1/subscriptions*")
    await shop.customer()
    with pytest.raises(stripe.APIError):
        await shop.subscription()
    await shop.api.subscriptions.list_async()
    shop.double.faults.clear()
    await shop.subscription()


async def test_the_same_seed_fails_the_same_requests() -> None:
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


def test_a_rate_limit_after_execution_is_refused() -> None:
    with pytest.raises(ValueError, match="before a request is executed"):
        StripeDouble().faults.add("rate_limit", after_work=True)


async def test_the_same_seed_makes_the_same_delivery_faults() -> None:
    def results() -> list[tuple[float, bool]]:
        faults = DeliveryFaults(shuffle_seconds=1, loss_rate=0.5, seed=7)
        return [(faults.next_delay(), faults.next_is_lost()) for _ in range(20)]

    assert results() == results()
