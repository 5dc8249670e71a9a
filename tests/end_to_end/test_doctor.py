"""``nest doctor`` beside a running Nest that is well, and beside ones that are not."""

import json
from typing import Any

from pymongo import AsyncMongoClient

from tests.end_to_end.test_operator import Done, run
from tests.stack import Stack


async def examined(nest: Stack, *words: str, **environment: str) -> tuple[Done, list[dict[str, str]]]:
    done = await run(nest, "doctor", "--json", *words, **{**nest.environment, **environment})
    assert done.err == ""
    findings: list[dict[str, str]] = json.loads(done.out)
    return done, findings


def problems(findings: list[dict[str, str]], area: str = "") -> list[str]:
    return [each["says"] for each in findings if each["level"] == "problem" and each["area"].startswith(area)]


async def test_a_nest_that_is_well_is_said_to_be(nest: Stack) -> None:
    done, findings = await examined(nest)
    assert problems(findings) == []
    assert done.code == 0
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


async def test_people_read_a_line_each_without_colours_in_a_pipe(nest: Stack) -> None:
    done = await run(nest, "doctor", **nest.environment)
    assert done.code == 0
    assert "\x1b" not in done.out
    assert "ok       kafka:" in done.out
    assert "→" in done.out
    assert "0 problems" in done.out.splitlines()[-1]


async def test_what_is_wrong_is_named_with_what_to_do(nest: Stack) -> None:
    done, findings = await examined(
        nest,
        NEST_STRIPE_API_KEY="sk_test_nobody",
        NEST_SMTP_PORT="1",
        NEST_SEALING_KEYS="k9:" + "A" * 43 + "=",
        NEST_TOPIC_PREFIX="nowhere.",
    )
    assert done.code == 1
    assert problems(findings, "stripe") == ["refuses the API key"]
    assert "127.0.0.1:1" in problems(findings, "mail server")[0]
    assert "do not unseal signing keys" in problems(findings, "sealing keys")[0]
    assert "nowhere.auth.commands is missing" in problems(findings, "topics")
    assert any("no instance of auth runs" in says for says in problems(findings, "consumers"))
    assert problems(findings, "mongodb") == []


async def test_wrong_settings_are_told_by_name_and_hide_nothing_else(nest: Stack) -> None:
    done, findings = await examined(nest, NEST_STRIPE_LIVEMODE="perhaps", NEST_SMTP_HOST="")
    assert done.code == 1
    said = problems(findings, "settings")
    assert any(line.startswith("NEST_STRIPE_LIVEMODE: ") and "gateway, billing" in line for line in said)
    assert any(line.startswith("NEST_SMTP_HOST: ") for line in said)
    assert any(each["area"] == "indexes" and each["level"] == "ok" for each in findings)


async def test_what_can_not_be_reached_hides_nothing_else(nest: Stack) -> None:
    done, findings = await examined(
        nest, NEST_KAFKA_BOOTSTRAP="127.0.0.1:1", NEST_MONGO_URL="mongodb://127.0.0.1:1/?replicaSet=no"
    )
    assert done.code == 1
    for area in ("topics", "consumers", "dead letters", "mongodb", "indexes", "timers", "sealing keys"):
        assert problems(findings, area), area
    assert any(each["area"] == "stripe" and each["level"] == "ok" for each in findings)


async def test_a_missing_index_and_an_overdue_timer_are_seen(nest: Stack) -> None:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(nest.environment["NEST_MONGO_URL"])
    try:
        database = client[nest.environment["NEST_DATABASE_PREFIX"] + "billing"]
        await database["timers"].drop_index("at_1")
        _, findings = await examined(nest)
        assert any("timers lacks the index at_1" in says for says in problems(findings, "indexes"))
        await database["timers"].create_index("at")
    finally:
        await client.close()
