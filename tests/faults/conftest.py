"""The ledger's services on topics of one test's own."""

from collections.abc import AsyncIterator

import pytest

from tests.shared.stand import Stand


@pytest.fixture
async def stand(kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str) -> AsyncIterator[Stand]:
    """Topics and databases of this test's own, and somebody who uses them."""
    async with Stand(kafka_bootstrap, mongo_url, topic_prefix, database_prefix) as made:
        yield made
