"""One whole Nest with two gateways for all end-to-end tests of a worker; each test uses people of its own."""

import itertools
from collections.abc import AsyncIterator, Callable

import pytest

from tests.stack import Stack, running_stack

_COUNT = itertools.count()


@pytest.fixture(scope="session")
async def nest(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> AsyncIterator[Stack]:
    """A running Nest."""
    prefix = unique()
    async with running_stack(
        tmp_path_factory.mktemp("nest"),
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        gateways=2,
    ) as stack:
        yield stack


@pytest.fixture
def email() -> str:
    """An address that nobody else has."""
    return f"ada{next(_COUNT)}@example.com"
