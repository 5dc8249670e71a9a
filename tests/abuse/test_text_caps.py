"""SMS pumping: texts to many numbers, ordered from many networks, against caps of a country and the deployment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

import pytest
from prometheus_client import REGISTRY

from tests.stack import RunNest, Stack

PER_COUNTRY: Final = 5
PER_DEPLOYMENT: Final = 8


@pytest.fixture(scope="module")
async def capped(run_nest: RunNest) -> AsyncIterator[Stack]:
    """A Nest with low caps on texts, behind a proxy."""
    settings = {
        "NEST_LIMIT_TEXTS_PER_COUNTRY": f"{PER_COUNTRY}/1h",
        "NEST_LIMIT_TEXTS_PER_DEPLOYMENT": f"{PER_DEPLOYMENT}/1h",
        "NEST_LIMIT_LIFT_LOOPBACK": "false",
        "NEST_TRUSTED_PROXIES": "127.0.0.1/32",
    }
    async with run_nest(settings=settings) as stack:
        yield stack


async def order_texts(nest: Stack, numbers: list[str]) -> Counter[str]:
    """Order a text to each number from a network of its own, and count ``done`` and error codes."""

    async def order(place: int, number: str) -> str:
        headers = {"x-forwarded-for": f"198.19.{place}.1"}
        response = await nest.http.post("/init", json={"phone_number": number}, headers=headers)
        if response.is_success:
            return "done"
        assert response.status_code == 429
        assert 1 <= int(response.headers["retry-after"]) == response.json()["meta"]["retry_after"] <= 3900
        return str(response.json()["code"])

    return Counter(await asyncio.gather(*(order(place, number) for place, number in enumerate(numbers))))


def throttled(limit: str) -> float:
    return REGISTRY.get_sample_value("nest_auth_throttled_total", {"limit": limit}) or 0.0


def texts(country: str) -> float:
    return REGISTRY.get_sample_value("nest_auth_texts_total", {"country": country}) or 0.0


async def test_texts_from_many_networks_meet_the_caps(capped: Stack) -> None:
    before = {limit: throttled(limit) for limit in ("texts-per-country", "texts-per-deployment")}
    swiss_before = texts("CH")

    swiss = await order_texts(capped, [f"+4179123{number:04}" for number in range(20)])
    assert swiss == {"done": PER_COUNTRY, "throttled": 20 - PER_COUNTRY}
    assert texts("CH") - swiss_before == PER_COUNTRY
    assert throttled("texts-per-country") - before["texts-per-country"] == 20 - PER_COUNTRY

    # Another country still gets texts, until the cap of the deployment.
    german = await order_texts(capped, [f"+4915112{number:06}" for number in range(10)])
    left = PER_DEPLOYMENT - PER_COUNTRY
    assert german == {"done": left, "throttled": 10 - left}
    assert throttled("texts-per-deployment") - before["texts-per-deployment"] == 10 - left
