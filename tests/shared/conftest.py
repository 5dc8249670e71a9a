"""Fixtures of the tests of ``shared``."""

from collections.abc import AsyncIterator

import pytest
import structlog

from tests.shared.bus_harness import BusHarness
from tests.shared.inbox_harness import InboxHarness, inbox_harness


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Log as plain text: people read it, and rendering a traceback with variables takes half a second."""
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


@pytest.fixture
async def harness(mongo_url: str, database_prefix: str) -> AsyncIterator[InboxHarness]:
    """An inbox on a database of this test."""
    async with inbox_harness(mongo_url, f"{database_prefix}inbox") as harness:
        yield harness


@pytest.fixture
async def bus(
    kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str
) -> AsyncIterator[BusHarness]:
    """Topics and databases of this test."""
    async with BusHarness(kafka_bootstrap, mongo_url, topic_prefix, database_prefix) as harness:
        yield harness
