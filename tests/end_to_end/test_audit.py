"""Operators see who has tried what: over the API, by the `nest` command, and on the bus."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from tests.stack import Login, Stack


async def entries(nest: Stack, **filters: Any) -> list[dict[str, Any]]:
    answer = await nest.call("list_audit_entries", filters, **nest.internal)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


async def test_an_operator_reads_what_a_user_did(nest: Stack, email: str) -> None:
    login = Login(email)
    code = await nest.code(login)
    await nest.call("authenticate_user", login.redemption(code, client_id="client_nobody"))
    tokens = (await nest.call("authenticate_user", login.redemption(code))).json()

    (came,) = await entries(nest, user_id=tokens["user_id"])
    refused = [entry for entry in await entries(nest, outcome="refused") if entry["session_id"] == came["session_id"]]

    assert (came["action"], came["outcome"], came["client_ip"]) == ("log_in", "done", "127.0.0.1")
    assert [entry["code"] for entry in refused] == ["incorrect_client"]
    assert email not in json.dumps([came, refused])


async def test_the_command_shows_the_same(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    environment = {"NEST_URL": nest.urls[0], "NEST_INTERNAL_KEY": nest.internal_key}
    arguments = ("audit", "list", "--user", tokens["user_id"], "--action", "log_in", "--since", "2020-01-01", "--json")

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *arguments),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()

    assert process.returncode == 0, errors
    assert json.loads(out)["entries"] == await entries(nest, user_id=tokens["user_id"])


async def test_an_action_that_there_is_not_is_told_so(nest: Stack) -> None:
    answer = await nest.call("list_audit_entries", {"action": "fly"}, **nest.internal)
    assert answer.status_code == 422
    assert answer.json()["meta"]["errors"][0]["path"] == "action"
