"""Services of one test's own, on topics and databases of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backing import Backing
from tests.shared.bus_harness import BusHarness
from tests.stack import Stack, running_stack


@pytest.fixture
async def bus(
    kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str
) -> AsyncIterator[BusHarness]:
    """Topics and databases of this test's own, and somebody who uses them."""
    async with BusHarness(kafka_bootstrap, mongo_url, topic_prefix, database_prefix) as made:
        yield made


@pytest.fixture
async def apart(
    request: pytest.FixtureRequest, tmp_path: Path, backing: Backing, topic_prefix: str, database_prefix: str
) -> AsyncIterator[Stack]:
    """A Nest in which the services that the module names in ``APART`` are processes of their own."""
    async with running_stack(
        tmp_path,
        kafka_bootstrap=backing.kafka_bootstrap,
        mongo_url=backing.mongo_url,
        topic_prefix=topic_prefix,
        database_prefix=database_prefix,
        separate=request.module.APART,
    ) as stack:
        yield stack
