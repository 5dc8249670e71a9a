"""Fixtures of the Stripe double's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stripe_double.shop import START, Receiver, Shop, open_receiver, open_shop

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore a deprecation in the tests of this folder: stripe-python passes request bodies to httpx by `data`."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"))


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """A shop whose clock stands still, and moves only by `advance`."""
    async with open_shop(start=START) as shop:
        shop.double.clock.freeze()
        yield shop


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A webhook endpoint."""
    async with open_receiver() as receiver:
        yield receiver
