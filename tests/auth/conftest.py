"""A desk of the auth service."""

import base64
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from services.auth.app import opened
from services.auth.handlers import HANDLERS
from services.auth.settings import AuthSettings
from services.auth.store import INDEXES
from shared.messages.auth import CreateClient
from shared.settings import load
from tests.auth.flows import CLIENT, OTHER_CLIENT, REDIRECT_URI
from tests.desk import Desk


@pytest.fixture
def settings() -> Callable[..., AuthSettings]:
    """Makes settings that would let the service start, with some of them changed."""
    usual = {
        "kafka_bootstrap": "127.0.0.1:9092",
        "mongo_url": "mongodb://127.0.0.1:27017",
        "sealing_keys": "test:" + base64.b64encode(bytes(range(32))).decode(),
        "environment": "test",
    }

    def make(**changed: Any) -> AuthSettings:
        return load(AuthSettings, **{**usual, **changed})

    return make


@pytest.fixture
def new_desk(mongo_url: str, database_prefix: str, settings: Callable[..., AuthSettings]) -> Callable[..., Desk]:
    """Makes desks of the auth service over one database, as several instances of it would share one."""

    def make(**changed: Any) -> Desk:
        return Desk(
            mongo_url,
            f"{database_prefix}auth",
            service="auth",
            handlers=HANDLERS,
            indexes=INDEXES,
            open=partial(opened, settings=settings(**changed)),
        )

    return make


@pytest.fixture
async def desk(new_desk: Callable[..., Desk]) -> AsyncIterator[Desk]:
    """The auth service at a desk; it knows two apps, both with the same redirect URI."""
    async with new_desk() as desk:
        for client_id in (CLIENT, OTHER_CLIENT):
            await desk.perform(
                CreateClient(id=client_id, name="An app", redirect_uris=(REDIRECT_URI, f"{REDIRECT_URI}/two?a=b"))
            )
        desk.clear()
        yield desk
