"""Fixtures of the client's tests: a fake Nest, and a running one."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_nest import FakeNest
from nest_client import Client, Retries, Tokens
from tests import conftest as project
from tests.conftest import backing, kafka_admin, kafka_bootstrap, mongo_client, mongo_url, run_nest, unique
from tests.stack import CHEAP_PASSWORDS, RunNest, Stack

__all__ = ["backing", "kafka_admin", "kafka_bootstrap", "mongo_client", "mongo_url", "run_nest", "unique"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the backing services available if only these tests run."""
    if not config.pluginmanager.is_registered(project):
        project.pytest_configure(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the backing services."""
    if not config.pluginmanager.is_registered(project):
        project.pytest_unconfigure(config)


@pytest.fixture
def fake() -> FakeNest:
    return FakeNest()


@pytest.fixture
def client(fake: FakeNest) -> Iterator[Client]:
    with httpx.Client(transport=httpx.MockTransport(fake)) as http:
        yield Client("http://nest.test", http=http, retries=Retries(within=5, timeout=5))


@pytest.fixture
def tokens() -> Tokens:
    return Tokens("a0", "r0", time.time() + 3600, "user_1", "client_1")


@pytest.fixture(scope="package")
async def nest(run_nest: RunNest) -> AsyncIterator[Stack]:
    async with run_nest(settings=CHEAP_PASSWORDS) as stack:
        yield stack
