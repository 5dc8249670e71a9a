"""Exports and erasures while services are stopped, during logins, and by the `nest` command."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.embedded.demo import CLIENT_ID
from tests.end_to_end.flows import Mongo, Person, database, finished, operator_call, process_when, unfinished
from tests.stack import Login, Stack, eventually


async def test_export_waits_for_a_stopped_service(separate: Stack, email: str) -> None:
    nest, person = separate, Person(email)
    await person.start_trial(nest)
    await person.consent_and_dismiss(nest)
    await nest.processes["billing"].stop()
    export = await operator_call(nest, "export_user", user_id=person.user_id)
    await process_when(nest, export, lambda now: set(unfinished(now)) == {"billing"})
    refused = await nest.call("get_user_export", {"process_id": export["id"]}, **nest.internal)
    assert (refused.status_code, refused.json()["code"]) == (409, "user_export_not_finished")
    await nest.processes["billing"].start()
    await finished(nest, export)
    document = await operator_call(nest, "get_user_export", process_id=export["id"])
    services = document["services"]
    assert services["auth"]["identifiers"][0]["identifierValue"] == email
    assert [trial["userId"] for trial in services["billing"]["trials"]] == [person.user_id]
    assert services["billing"]["subscriptions"]
    assert {delivery["recipient"] for delivery in services["mailer"]["deliveries"]} == {email}
    assert [consent["level"] for consent in services["mailer"]["marketing_consents"]] == ["general"]
    assert services["news"]["dismissals"]


async def test_erasure_finishes_when_a_stopped_service_starts_hours_later(
    separate: Stack, email: str, mongo_client: Mongo
) -> None:
    nest = separate
    user_id = (await nest.log_in(email))["user_id"]
    auth = database(nest, mongo_client, "auth")
    await nest.processes["news"].stop()
    erased = await nest.command("users", "erase", user_id, "--yes", "--wait", "1", "--json")
    process = json.loads(erased.out)
    assert erased.code == 2
    assert "news" in unfinished(process)
    assert f"nest users erase --process {process['id']}" in json.loads(erased.err)["message"]
    watched = await nest.command("users", "erase", "--process", process["id"], "--wait", "1")
    assert "waiting for news" in watched.err
    await process_when(nest, process, lambda now: unfinished(now) == {"news": None})
    for number in (2, 3):
        # An hour passes: the timer of auth that repeats its commands is due.
        auth["timers"].update_many({"type": "auth.continue-user-process"}, {"$set": {"at": datetime.now(UTC)}})
        repeated = {"_id": process["id"], "run": number}
        await eventually(lambda row=repeated: auth["user_processes"].find_one(row), what=f"run {number}")
    shown = await nest.command("users", "erase", "--process", process["id"], "--wait", "0", "--json")
    assert (shown.code, unfinished(json.loads(shown.out))) == (2, {"news": None})
    await nest.processes["news"].start()
    await finished(nest, process)
    later = await nest.command("users", "erase", "--process", process["id"], "--json")
    assert (later.code, json.loads(later.out)["state"]) == (0, "done")


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
async def test_login_during_an_erasure_leaves_no_session_and_no_user(nest: Stack, email: str, rounds: int) -> None:
    # Four at a time; tests/auth/personal_data/test_handlers.py has every interleaving.
    for number in range(rounds):
        await asyncio.gather(*(_log_in_during_erasure(nest, f"{number}.{person}.{email}") for person in range(4)))


async def _log_in_during_erasure(nest: Stack, address: str) -> None:
    first = await nest.log_in(address)
    login = Login(address)
    code = await nest.code(login)

    async def redeem() -> Any:
        await asyncio.sleep(random.uniform(0, 0.05))
        return await nest.call("authenticate_user", login.redemption(code))

    response, process = await asyncio.gather(redeem(), operator_call(nest, "erase_user", user_id=first["user_id"]))
    await finished(nest, process)
    tokens = [first]
    if response.status_code == 200:
        assert response.json()["user_id"] == first["user_id"]
        tokens.append(response.json())
    else:
        assert (response.status_code, response.json()["code"]) == (404, "token_not_found")
    for each in tokens:
        refresh = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": each["refresh_token"]}
        assert (await nest.call("authenticate_user", refresh)).status_code == 404
    unknown = {"identifier_type": "email", "identifier_value": address}
    assert (await nest.call("find_user", unknown, **nest.internal)).status_code == 404


async def test_command_finds_exports_and_erases_a_user(nest: Stack, email: str, tmp_path: Path) -> None:
    user_id = (await nest.log_in(email))["user_id"]
    assert user_id in (await nest.command("users", "find", email.upper())).out
    assert email in (await nest.command("users", "show", user_id)).out
    assert len((await nest.command("users", "sessions", user_id)).out.splitlines()) == 2
    ended = await nest.command("users", "sessions", user_id, "--end", "all", "--yes")
    assert len(ended.out.splitlines()) == 1, ended.err
    exported = await nest.command("users", "export", user_id, "--to", str(tmp_path / "ada.json"))
    assert exported.code == 0, exported.err
    assert json.loads((tmp_path / "ada.json").read_text())["services"]["auth"]["users"][0]["id"] == user_id
    assert (tmp_path / "ada.json").stat().st_mode & 0o077 == 0
    unconfirmed = await nest.command("users", "erase", user_id)
    assert unconfirmed.code == 2
    erased = await nest.command("users", "erase", user_id, "--yes", "--json")
    assert (erased.code, json.loads(erased.out)["state"]) == (0, "done"), erased.err
    later = await nest.command("users", "erase", "--process", json.loads(erased.out)["id"], "--json")
    assert json.loads(later.out)["state"] == "done"
    assert (await nest.command("users", "find", email)).code == 1
