"""A stub of Nest that validates operators' requests, records them and returns one response per method."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import typer.testing
from aiokafka.admin import AIOKafkaAdminClient
from typer.testing import CliRunner, Result

from services.cli import app
from services.gateway.methods import METHODS
from services.gateway.requests import validated
from services.operator.client import VERSION, Client
from tests.deploy.environments import COMMAND_LINE
from tests.operator.responses import RESPONSES


@dataclass
class NestStub:
    """Stub of a running Nest.

    Attributes:
        responses: the response of each method; an exception is raised.
        calls: methods and bodies of the valid calls, in order.
    """

    responses: dict[str, Any] = field(default_factory=lambda: dict(RESPONSES))
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def call(self, method: str, body: dict[str, Any]) -> Any:
        """Validate and record a request as the gateway does, and return the method's response."""
        message = METHODS[VERSION][method].message
        assert message is not None
        validated(message, body, json.dumps(body).encode())
        self.calls.append((method, body))
        response = self.responses[method]
        if isinstance(response, Exception):
            raise response
        return json.loads(json.dumps(response))

    def run(self, *words: str, stdin: str | None = None) -> Result:
        """Run `nest` with these words."""
        return CliRunner().invoke(app, list(words), input=stdin)


async def delete_topic(admin: AIOKafkaAdminClient, topic: str) -> None:
    """Delete a topic, and wait until the broker no longer lists it."""
    await admin.delete_topics([topic])
    async with asyncio.timeout(30):
        while topic in await admin.list_topics():  # noqa: ASYNC110 -- the broker's state
            await asyncio.sleep(0.05)


@pytest.fixture
def nest(monkeypatch: pytest.MonkeyPatch) -> NestStub:
    """A stub that all commands call."""
    stub = NestStub()
    monkeypatch.setattr(typer.testing, "_get_command", lambda _app: COMMAND_LINE)
    # Commands must not find the Kafka of the tests.
    monkeypatch.delenv("NEST_KAFKA_BOOTSTRAP", raising=False)
    monkeypatch.setenv("NEST_URL", "http://nest.test")
    monkeypatch.setenv("NEST_INTERNAL_KEY", "a key")
    monkeypatch.setattr(Client, "call", lambda _client, method, body: stub.call(method, body))
    return stub
