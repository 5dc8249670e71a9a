"""`nest topics`, as a person types it, against a real Kafka."""

import asyncio
import json
from collections.abc import Callable

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from typer.testing import CliRunner, Result

from services.cli import app
from services.embedded import ports
from tests.operator.conftest import without


@pytest.fixture
def prefix(unique: Callable[[], str]) -> str:
    """Of topics that are not there yet."""
    return unique()


async def typed(*words: str) -> Result:
    """In a thread, since the verb has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["topics", *words])


async def test_topics_are_made_found_well_and_what_differs_is_named(
    kafka_bootstrap: str, kafka_admin: AIOKafkaAdminClient, prefix: str
) -> None:
    where = ("--bootstrap", kafka_bootstrap, "--prefix", prefix)
    missing = await typed("check", *where)
    assert missing.exit_code == 1
    assert f"{prefix}auth.commands is missing" in missing.stdout.splitlines()
    made = await typed("apply", *where)
    assert (made.exit_code, made.stderr) == (0, "")
    assert f"made {prefix}auth.commands" in made.stdout.splitlines()
    again = await typed("apply", *where)
    assert again.stdout == "0 topics made, settings of all applied\n"
    well = await typed("check", *where)
    assert (well.exit_code, well.stdout) == (0, "all topics are there, as this release declares them\n")
    await without(kafka_admin, f"{prefix}auth.keys")
    differs = await typed("check", *where, "--json")
    assert (differs.exit_code, json.loads(differs.stdout)) == (1, {"differences": [f"{prefix}auth.keys is missing"]})


async def test_a_kafka_that_is_away_is_one_line() -> None:
    for verb in ("check", "apply"):
        done = await typed(verb, "--bootstrap", f"127.0.0.1:{ports.any_free()}")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("nest: Kafka at 127.0.0.1:")
        assert len(done.stderr.splitlines()) == 1
