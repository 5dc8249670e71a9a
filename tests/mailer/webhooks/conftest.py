"""A receiver of webhooks, and the mailer with an endpoint."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import MongoClient

from services.mailer.settings import MailerSettings
from shared.settings import load
from tests.mailer.conftest import DEFAULT_SETTINGS, mailer_harness
from tests.mailer.webhook_receiver import Receiver
from tests.service_harness import ServiceHarness


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that accepts everything."""
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="package")
async def shared_harness(
    mongo_url: str, unique: Callable[[], str], mongo_client: MongoClient[dict[str, Any]]
) -> AsyncIterator[ServiceHarness]:
    """A mailer that may post to private addresses; endpoints are confirmed at once."""
    changed = {"webhook_private_addresses": True, "webhook_timeout": 1, "operators_address": "ops@nest.example"}
    settings = load(MailerSettings, **{**DEFAULT_SETTINGS, **changed})
    async with mailer_harness(mongo_url, unique(), settings) as harness:
        harness.context.wanted_events.max_age = 0
        yield harness
    mongo_client.drop_database(harness.database.name)


@pytest.fixture
async def harness(shared_harness: ServiceHarness) -> ServiceHarness:
    """The mailer without documents: creating its indexes takes longer than a test."""
    database = shared_harness.database
    names = ("webhook_endpoints", "webhook_deliveries", "erased", "inbox", "timers", "marketing_consents")
    await asyncio.gather(*(database[name].delete_many({}) for name in (*names, "marketing_consent_changes")))
    shared_harness.now = datetime.now(UTC)
    shared_harness.clear()
    return shared_harness
