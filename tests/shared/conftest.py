"""Works without a bus, and a MongoDB to commit them to."""

from collections.abc import AsyncIterator

import pytest

from tests.shared.committing import Bench, bench


@pytest.fixture
async def committing(mongo_url: str, database_prefix: str) -> AsyncIterator[Bench]:
    """An inbox on a database of this test's own, and works to commit with it."""
    async with bench(mongo_url, f"{database_prefix}inbox") as made:
        yield made
