"""Fixtures of the fault tests."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.backing import Backing
from tests.shared.bus_harness import BusHarness
from tests.stack import Stack, running_stack


@pytest.fixture
async def bus(
    kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str
) -> AsyncIterator[BusHarness]:
    """Topics and databases of this test."""
    async with BusHarness(kafka_bootstrap, mongo_url, topic_prefix, database_prefix) as harness:
        yield harness


@pytest.fixture
async def nest(
    request: pytest.FixtureRequest, tmp_path: Path, backing: Backing, topic_prefix: str, database_prefix: str
) -> AsyncIterator[Stack]:
    """A whole Nest whose services in the module's ``SEPARATE`` run as processes of their own."""
    async with running_stack(
        tmp_path,
        kafka_bootstrap=backing.kafka_bootstrap,
        mongo_url=backing.mongo_url,
        topic_prefix=topic_prefix,
        database_prefix=database_prefix,
        separate=request.module.SEPARATE,
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
async def shared_nest(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    backing: Backing,
    unique: Callable[[], str],
) -> AsyncIterator[Stack]:
    """The same as ``nest``, for all tests of a module that use addresses of their own."""
    prefix = unique()
    async with running_stack(
        tmp_path_factory.mktemp("nest"),
        kafka_bootstrap=backing.kafka_bootstrap,
        mongo_url=backing.mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        separate=request.module.SEPARATE,
    ) as stack:
        yield stack
