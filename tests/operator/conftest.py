"""A Nest that answers operators' verbs with one of everything, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import typer.testing
from aiokafka.admin import AIOKafkaAdminClient
from typer.main import get_command
from typer.testing import CliRunner, Result

from services.cli import app
from services.gateway.methods import METHODS
from services.gateway.requests import validated
from services.operator.client import VERSION, Client
from tests.operator.answers import ANSWERS

COMMAND = get_command(app)
"""Made once: that takes longer than most verbs."""


@dataclass
class Nest:
    """Stands in for a running one.

    Attributes:
        answers: what each method answers.
        asked: the methods that were called, with their bodies; each was what the method takes.
    """

    answers: dict[str, Any] = field(default_factory=lambda: dict(ANSWERS))
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def call(self, method: str, body: dict[str, Any]) -> Any:
        """Answer, if the real one would take that."""
        message = METHODS[VERSION][method].message
        assert message is not None
        validated(message, body, json.dumps(body).encode())
        self.asked.append((method, body))
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return json.loads(json.dumps(answer))

    def run(self, *words: str, typed: str | None = None) -> Result:
        """Type a verb."""
        return CliRunner().invoke(app, list(words), input=typed)


async def without(admin: AIOKafkaAdminClient, topic: str) -> None:
    """Delete a topic, and wait until the broker has noticed."""
    await admin.delete_topics([topic])
    async with asyncio.timeout(30):
        while topic in await admin.list_topics():  # noqa: ASYNC110 -- the broker's state
            await asyncio.sleep(0.05)


@pytest.fixture
def nest(monkeypatch: pytest.MonkeyPatch) -> Nest:
    """One that all verbs find."""
    there = Nest()
    monkeypatch.setattr(typer.testing, "_get_command", lambda _app: COMMAND)
    # Of the tests' own Kafka, which a verb must not find by itself.
    monkeypatch.delenv("NEST_KAFKA_BOOTSTRAP", raising=False)
    monkeypatch.setenv("NEST_URL", "http://nest.test")
    monkeypatch.setenv("NEST_INTERNAL_KEY", "a key")
    monkeypatch.setattr(Client, "call", lambda _client, method, body: there.call(method, body))
    return there
