"""Works without a bus, and services on one."""

from collections.abc import AsyncIterator

import pytest
import structlog

from tests.shared.bus_harness import Stand
from tests.shared.inbox_harness import Bench, bench


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
async def committing(mongo_url: str, database_prefix: str) -> AsyncIterator[Bench]:
    """An inbox on a database of this test's own, and works to commit with it."""
    async with bench(mongo_url, f"{database_prefix}inbox") as made:
        yield made


@pytest.fixture
async def stand(kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str) -> AsyncIterator[Stand]:
    """Topics and databases of this test's own, and somebody who uses them."""
    async with Stand(kafka_bootstrap, mongo_url, topic_prefix, database_prefix) as made:
        yield made
