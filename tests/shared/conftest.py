"""Works without a bus, and services on one."""

from collections.abc import AsyncIterator

import pytest
import structlog

from tests.shared.bus_harness import BusHarness
from tests.shared.inbox_harness import InboxHarness, inbox_harness


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """What a failing test shows is read by people, and rendering traces with all variables takes half a second each."""
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


@pytest.fixture
async def harness(mongo_url: str, database_prefix: str) -> AsyncIterator[InboxHarness]:
    """An inbox on a database of this test's own, and works to commit with it."""
    async with inbox_harness(mongo_url, f"{database_prefix}inbox") as made:
        yield made


@pytest.fixture
async def bus(
    kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str
) -> AsyncIterator[BusHarness]:
    """Topics and databases of this test's own, and somebody who uses them."""
    async with BusHarness(kafka_bootstrap, mongo_url, topic_prefix, database_prefix) as made:
        yield made
