"""`nest doctor` beside a running Nest: healthy, with wrong settings, and with unreachable dependencies."""

from __future__ import annotations

import json

from tests.end_to_end.flows import Mongo, database
from tests.forked import Completed
from tests.stack import Stack

Findings = list[dict[str, str]]


async def examine(nest: Stack, **environment: str) -> tuple[Completed, Findings]:
    """Run `nest doctor --json` with the services' environment and these changes."""
    completed = await nest.command("doctor", "--json", **{**nest.environment, **environment})
    assert completed.err == ""
    findings: Findings = json.loads(completed.out)
    return completed, findings


def problems(findings: Findings, area: str = "") -> list[str]:
    return [each["says"] for each in findings if each["level"] == "problem" and each["area"].startswith(area)]


async def test_healthy_nest_has_no_problems(nest: Stack) -> None:
    completed, findings = await examine(nest)
    assert problems(findings) == []
    assert completed.code == 0
    areas = {each["area"] for each in findings if each["level"] == "ok"}
    assert areas >= {
        "settings",
        "kafka",
        "topics",
        "consumers",
        "mongodb",
        "clock",
        "indexes",
        "timers",
        "stripe events",
        "sealing keys",
        "stripe",
    }
    assert all(each["do"] for each in findings if each["level"] != "ok")


async def test_output_without_json_is_one_plain_line_per_finding(nest: Stack) -> None:
    completed = await nest.command("doctor", **nest.environment)
    assert completed.code == 0
    assert "\x1b" not in completed.out
    assert "ok       kafka:" in completed.out
    assert "→" in completed.out
    assert "0 problems" in completed.out.splitlines()[-1]


async def test_every_wrong_value_is_found(nest: Stack) -> None:
    completed, findings = await examine(
        nest,
        NEST_STRIPE_API_KEY="sk_test_unknown",
        NEST_SMTP_PORT="1",
        NEST_SEALING_KEYS="k9:" + "A" * 43 + "=",
        NEST_TOPIC_PREFIX="nowhere.",
    )
    assert completed.code == 1
    assert problems(findings, "stripe") == ["refuses the API key"]
    assert "127.0.0.1:1" in problems(findings, "mail server")[0]
    assert "do not unseal signing keys" in problems(findings, "sealing keys")[0]
    assert "nowhere.auth.commands is missing" in problems(findings, "topics")
    assert any("no instance of auth runs" in says for says in problems(findings, "consumers"))
    assert problems(findings, "mongodb") == []


async def test_invalid_settings_hide_no_other_finding(nest: Stack) -> None:
    completed, findings = await examine(nest, NEST_STRIPE_LIVEMODE="perhaps", NEST_SMTP_HOST="")
    assert completed.code == 1
    invalid = problems(findings, "settings")
    assert any(line.startswith("NEST_STRIPE_LIVEMODE: ") and "gateway, billing" in line for line in invalid)
    assert any(line.startswith("NEST_SMTP_HOST: ") for line in invalid)
    assert any(each["area"] == "indexes" and each["level"] == "ok" for each in findings)


async def test_unreachable_kafka_and_mongodb_hide_no_other_finding(nest: Stack) -> None:
    completed, findings = await examine(
        nest, NEST_KAFKA_BOOTSTRAP="127.0.0.1:1", NEST_MONGO_URL="mongodb://127.0.0.1:1/?replicaSet=no"
    )
    assert completed.code == 1
    for area in ("topics", "consumers", "dead letters", "mongodb", "indexes", "timers", "sealing keys"):
        assert problems(findings, area), area
    assert any(each["area"] == "stripe" and each["level"] == "ok" for each in findings)


async def test_missing_index_is_found(nest: Stack, mongo_client: Mongo) -> None:
    timers = database(nest, mongo_client, "billing")["timers"]
    timers.drop_index("at_1")
    try:
        _, findings = await examine(nest)
    finally:
        timers.create_index("at")
    assert any("timers lacks the index at_1" in says for says in problems(findings, "indexes"))
