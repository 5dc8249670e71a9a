"""Service harness of news."""

import base64
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from services.news.app import INDEXES, open_context
from services.news.handlers import HANDLERS
from services.news.settings import NewsSettings
from shared.messages.auth.clients import ClientAnnounced
from shared.settings import load
from tests.service_harness import ServiceHarness

CLIENT = "client_000000C2kdCzNlbL1BqR5FeMatItU"


def client_event(client_id: str) -> ClientAnnounced:
    """The event by which auth publishes a client."""
    return ClientAnnounced(key=client_id, client_id=client_id, name="An app", disabled=False)


@pytest.fixture
def database_prefix(emptied_database: Callable[[str], str]) -> str:
    """Prefix of the names of an empty database."""
    return emptied_database("news").removesuffix("news")


@pytest.fixture
def settings() -> Callable[..., NewsSettings]:
    """Factory of valid settings with some values changed."""
    defaults = {
        "kafka_bootstrap": "127.0.0.1:9092",
        "mongo_url": "mongodb://nest:hunter2@127.0.0.1:27017",
        "kafka_insecure_in_production": True,
        "sealing_keys": "test:" + base64.b64encode(bytes(32)).decode(),
    }

    def make(**changed: Any) -> NewsSettings:
        return load(NewsSettings, **{**defaults, **changed})

    return make


def news_harness(mongo_url: str, database_name: str, settings: NewsSettings) -> ServiceHarness:
    """A harness of news with these settings."""
    return ServiceHarness(
        mongo_url,
        database_name,
        service="news",
        handlers=HANDLERS,
        indexes=INDEXES,
        open_context=partial(open_context, settings=settings),
    )


@pytest.fixture
async def harness(
    mongo_url: str, database_prefix: str, settings: Callable[..., NewsSettings]
) -> AsyncIterator[ServiceHarness]:
    """A harness of news with one registered client."""
    loaded = settings(news_action_schemes="https,http,beak")
    async with news_harness(mongo_url, f"{database_prefix}news", loaded) as harness:
        harness.publish_to_followers(client_event(CLIENT))
        yield harness
