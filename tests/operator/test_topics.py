"""`nest topics` on a real Kafka."""

import asyncio
import base64
import json
from collections.abc import Callable

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from typer.testing import CliRunner, Result

from services.cli import app
from services.embedded import ports
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import apply, declared
from tests.operator.conftest import delete_topic


@pytest.fixture
def prefix(unique: Callable[[], str]) -> str:
    """Prefix of topics that do not exist yet."""
    return unique()


async def run(*words: str) -> Result:
    """Run a command in a thread, because it has its own event loop."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["topics", *words])


async def test_apply_creates_topics_once_and_check_names_differences(
    kafka_bootstrap: str, kafka_admin: AIOKafkaAdminClient, prefix: str
) -> None:
    options = ("--bootstrap", kafka_bootstrap, "--prefix", prefix)
    missing = await run("check", *options)
    assert missing.exit_code == 1
    assert f"{prefix}auth.commands is missing" in missing.stdout.splitlines()
    created = await run("apply", *options)
    assert (created.exit_code, created.stderr) == (0, "")
    assert f"created {prefix}auth.commands" in created.stdout.splitlines()
    assert created.stdout.count("created ") == len(declared())
    again = await run("apply", *options)
    assert again.stdout == "0 topics created, configuration of all applied\n"
    same = await run("check", *options)
    assert (same.exit_code, same.stdout) == (0, "all topics are as declared\n")
    await delete_topic(kafka_admin, f"{prefix}auth.keys")
    differs = await run("check", *options, "--json")
    assert (differs.exit_code, json.loads(differs.stdout)) == (1, {"differences": [f"{prefix}auth.keys is missing"]})


async def test_unreachable_kafka_is_a_one_line_error() -> None:
    for verb in ("check", "apply"):
        done = await run(verb, "--bootstrap", f"127.0.0.1:{ports.any_free()}")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("nest: the request to Kafka at 127.0.0.1:")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
async def test_grow_shows_its_plan_and_needs_a_confirmation(
    kafka_bootstrap: str, kafka_admin: AIOKafkaAdminClient, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any process running."""
    kafka = KafkaConnection(kafka_bootstrap)
    await apply(kafka, prefix=prefix, max_partitions=2)
    options = ("news.commands", "--partitions", "3", "--bootstrap", kafka_bootstrap, "--prefix", prefix)
    monkeypatch.delenv("NEST_SEALING_KEYS", raising=False)
    without_key = await run("grow", *options)
    assert without_key.stderr.startswith("nest: NEST_SEALING_KEYS, those of the services, are needed")
    monkeypatch.setenv("NEST_SEALING_KEYS", f"k1:{base64.b64encode(bytes(32)).decode()}")
    planned = await run("grow", *options)
    assert planned.exit_code == 2
    assert planned.stdout == "news.commands: 2 partitions -> 3\nrunning: no process\n"
    grown = await run("grow", *options, "--yes")
    assert (grown.exit_code, grown.stdout.splitlines()[-1]) == (0, "all processes continue")
    (described,) = await kafka_admin.describe_topics([f"{prefix}news.commands"])
    assert len(described["partitions"]) == 3
    again = await run("grow", *options, "--yes")
    assert again.stdout == "news.commands: 3 partitions\nrunning: no process\n"
    refused = await run("grow", "auth.keys", "--bootstrap", kafka_bootstrap, "--prefix", prefix, "--yes")
    assert refused.exit_code == 2
    assert "may not grow: auth.keys" in " ".join(refused.stderr.split())
