"""A desk for owners, applications and their users."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.auth.accounts import CHEAP
from tests.desk import Desk


@pytest.fixture
async def accounts(new_desk: Callable[..., Desk]) -> AsyncIterator[Desk]:
    """The auth service at a desk, hashing passwords cheaply."""
    async with new_desk(**CHEAP) as desk:
        yield desk


@pytest.fixture
async def old_accounts(new_desk: Callable[..., Desk]) -> AsyncIterator[Desk]:
    """The same, serving old clients."""
    async with new_desk(**CHEAP, old_clients=True) as desk:
        yield desk
