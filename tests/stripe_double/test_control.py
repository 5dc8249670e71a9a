from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.stripe_double.shop import API_KEY, SECRET, Receiver, Shop, until


@pytest.fixture
async def http(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the control API."""
    async with httpx.AsyncClient(
        base_url=f"{shop.double.url}/_double/", headers={"authorization": f"Bearer {API_KEY}"}
    ) as http:
        yield http


async def post(http: httpx.AsyncClient, path: str, /, **arguments: Any) -> Any:
    response = await http.post(path, json=arguments)
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_control_api_requires_the_secret_key(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.double.url) as unauthenticated:
        assert (await unauthenticated.post("/_double/clock", json={"advance": 60})).status_code == 401


async def test_actions_are_simulated_and_objects_are_listed(shop: Shop, http: httpx.AsyncClient) -> None:
    subscription = await post(http, "simulate/checkout", price=shop.price, email="ada@example.com", trial_days=14)
    assert subscription["status"] == "trialing"
    assert await post(http, "clock", advance=14 * 86400 + 3600) == {"now": shop.double.clock.now()}
    (read,) = (await http.get("objects", params={"kind": "subscription"})).json()
    assert read["status"] == "active"
    assert (await http.get("clock")).json()["now"] == subscription["created"] + 14 * 86400 + 3600
    await post(http, "clock", to=subscription["created"] + 20 * 86400)
    assert (await http.get("log")).json()[0]["path"] == "/v1/prices"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("simulate/checkout", {"price": "price_none"}, 400),
        ("simulate/_updated", {"subscription": "x"}, 404),
        ("simulate/checkout", {"nonsense": 1}, 400),
        ("clock", {}, 400),
        ("clock", {"advance": -1}, 400),
        ("faults", {"kind": "nonsense"}, 400),
        ("nonsense", {}, 404),
    ],
)
async def test_invalid_requests_are_refused(http: httpx.AsyncClient, path: str, body: Any, status: int) -> None:
    response = await http.post(path, json=body)
    assert (response.status_code, "message" in response.json()["error"]) == (status, True)


async def test_faults_are_added_and_removed(shop: Shop, http: httpx.AsyncClient) -> None:
    await post(http, "faults", kind="server_error", path="/v1/customers*")
    async with httpx.AsyncClient(base_url=shop.double.url, auth=(API_KEY, "")) as api:
        assert (await api.get("/v1/customers")).status_code == 500
        assert (await http.delete("faults")).json() == {"hits": 1}
        assert (await api.get("/v1/customers")).status_code == 200


async def test_an_outage_ends_by_itself(shop: Shop, http: httpx.AsyncClient) -> None:
    await post(http, "outage", seconds=0.2)

    async def responds() -> bool:
        async with httpx.AsyncClient(base_url=shop.double.url, auth=(API_KEY, "")) as api:
            try:
                return (await api.get("/v1/customers")).status_code == 200
            except httpx.TransportError:
                return False

    await until(lambda: shop.double._listener._server is None)
    assert not await responds()
    await until(lambda: shop.double._listener._server is not None)
    assert await responds()


async def test_webhooks_are_configured_held_released_and_drained(
    shop: Shop, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    assert await post(http, "webhooks", url=receiver.url, secrets=[SECRET], copies=2) == {
        "url": receiver.url,
        "pending": 0,
    }
    await shop.customer(None)
    await post(http, "webhooks/drain", seconds=5)
    assert len(receiver.bodies) == 2
    await post(http, "webhooks")
    await post(http, "webhooks/hold")
    await shop.customer(None)
    await post(http, "webhooks/release")
    assert len(receiver.bodies) == 3
    await post(http, "webhooks/resend", event=receiver.ids[0])
    await post(http, "webhooks/drain")
    assert receiver.ids[-1] == receiver.ids[0]
    assert len((await http.get("deliveries")).json()) == 4
    await post(http, "webhooks", url="http://127.0.0.1:1/")
    await shop.customer(None)
    assert (await http.post("webhooks/drain", json={"seconds": 0.05})).status_code == 504
