"""A harness of the news service."""

import base64
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from services.news.app import opened
from services.news.handlers import HANDLERS
from services.news.settings import NewsSettings
from services.news.store import INDEXES
from shared.messages.auth.clients import ClientAnnounced
from shared.settings import load
from tests.service_harness import ServiceHarness

CLIENT = "client_000000C2kdCzNlbL1BqR5FeMatItU"


def announced(client_id: str) -> ClientAnnounced:
    """What auth says of a client."""
    return ClientAnnounced(key=client_id, client_id=client_id, name="An app", disabled=False)


@pytest.fixture
def settings() -> Callable[..., NewsSettings]:
    """Makes settings that would let the service start, with some of them changed."""
    usual = {
        "kafka_bootstrap": "127.0.0.1:9092",
        "mongo_url": "mongodb://127.0.0.1:27017",
        "sealing_keys": "test:" + base64.b64encode(bytes(32)).decode(),
    }

    def make(**changed: Any) -> NewsSettings:
        return load(NewsSettings, **{**usual, **changed})

    return make


@pytest.fixture
async def harness(
    mongo_url: str, database_prefix: str, settings: Callable[..., NewsSettings]
) -> AsyncIterator[ServiceHarness]:
    """The news service at a harness; it knows one client."""
    chosen = settings(news_action_schemes="https,http,beak")
    async with ServiceHarness(
        mongo_url,
        f"{database_prefix}news",
        service="news",
        handlers=HANDLERS,
        indexes=INDEXES,
        open_context=partial(opened, settings=chosen),
    ) as harness:
        harness.publish_to_followers(announced(CLIENT))
        yield harness
