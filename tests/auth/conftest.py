"""Fixtures of the auth service."""

import base64
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import hypothesis
import pytest

from services.auth.app import INDEXES, opened
from services.auth.handlers import HANDLERS
from services.auth.settings import AuthSettings
from shared.messages.auth.clients import CreateClient
from shared.settings import load
from tests.auth.accounts.flows import CHEAP
from tests.auth.flows import CLIENT, OTHER_CLIENT, REDIRECT_URI
from tests.service_harness import ServiceHarness

# No deadline: on a shared machine the duration of an example means nothing.
hypothesis.settings.register_profile("auth", deadline=None)
hypothesis.settings.load_profile("auth")


@pytest.fixture
def settings() -> Callable[..., AuthSettings]:
    """Factory of valid settings, with some of them changed."""
    defaults = {
        "kafka_bootstrap": "127.0.0.1:9092",
        "mongo_url": "mongodb://nest:hunter2@127.0.0.1:27017",
        "sealing_keys": "test:" + base64.b64encode(bytes(range(32))).decode(),
        "environment": "test",
        "kafka_insecure_in_production": True,
        # Most tests request many links for one address; tests of rate limits set the default limits.
        "limit_magic_links_per_address": "1000/1s",
        "limit_magic_links_per_client": "none",
    }

    def make(**changed: Any) -> AuthSettings:
        return load(AuthSettings, **{**defaults, **changed})

    return make


@pytest.fixture
def database_name(emptied_database: Callable[[str], str]) -> str:
    """An empty database."""
    return emptied_database("auth")


@pytest.fixture
def new_harness(
    mongo_url: str,
    database_name: str,
    settings: Callable[..., AuthSettings],
) -> Callable[..., ServiceHarness]:
    """Factory of harnesses of the auth service, which share one empty database like several instances."""

    def make(master_keys: dict[str, bytes] | None = None, **changed: Any) -> ServiceHarness:
        return ServiceHarness(
            mongo_url,
            database_name,
            service="auth",
            handlers=HANDLERS,
            indexes=INDEXES,
            open_context=partial(opened, settings=settings(**changed)),
            master_keys=master_keys,
            topic_prefix=str(changed.get("topic_prefix", "")),
        )

    return make


@pytest.fixture
async def harness(new_harness: Callable[..., ServiceHarness]) -> AsyncIterator[ServiceHarness]:
    """The auth service with two clients, which have the same redirect URIs."""
    async with new_harness() as harness:
        for client_id in (CLIENT, OTHER_CLIENT):
            await harness.deliver(
                CreateClient(id=client_id, name="An app", redirect_uris=(REDIRECT_URI, f"{REDIRECT_URI}/two?a=b"))
            )
        harness.clear()
        yield harness


@pytest.fixture
async def accounts(new_harness: Callable[..., ServiceHarness]) -> AsyncIterator[ServiceHarness]:
    """The auth service with cheap password hashes."""
    async with new_harness(**CHEAP) as harness:
        yield harness


@pytest.fixture
async def old_accounts(new_harness: Callable[..., ServiceHarness]) -> AsyncIterator[ServiceHarness]:
    """The auth service with cheap password hashes and old clients."""
    async with new_harness(**CHEAP, old_clients=True) as harness:
        yield harness
