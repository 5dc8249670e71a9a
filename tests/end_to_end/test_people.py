"""People exported and erased on the real stack: while services are away, while they log in, and by the nest command."""

import asyncio
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.embedded.demo import CLIENT_ID
from tests.end_to_end.conftest import Away
from tests.end_to_end.lives import Person, ask, done, once, waits
from tests.end_to_end.searching import Client
from tests.end_to_end.test_operator import run
from tests.stack import Login, Stack, eventually


async def test_an_export_waits_for_a_service_that_is_away(away: Away, email: str) -> None:
    nest, person = away.nest, Person(email)
    await person.come_for_a_trial(nest)
    await person.choose(nest)
    await nest.processes["billing"].stop()
    begun = await ask(nest, "export_user", user_id=person.user_id)
    await once(nest, begun, lambda now: set(waits(now)) == {"billing"})
    refused = await nest.call("get_user_export", {"process_id": begun["id"]}, **nest.internal)
    assert (refused.status_code, refused.json()["code"]) == (409, "user_export_not_finished")
    await nest.processes["billing"].start()
    await done(nest, begun)
    document = await ask(nest, "get_user_export", process_id=begun["id"])
    services = document["services"]
    assert services["auth"]["identifiers"][0]["identifierValue"] == email
    assert [trial["userId"] for trial in services["billing"]["trials"]] == [person.user_id]
    assert services["billing"]["subscriptions"]
    assert {delivery["recipient"] for delivery in services["mailer"]["deliveries"]} == {email}
    assert [consent["level"] for consent in services["mailer"]["marketing_consents"]] == ["general"]
    assert services["news"]["dismissals"]


async def test_an_erasure_goes_on_by_itself_when_a_service_was_away_for_hours(
    away: Away, email: str, mongo_client: Client
) -> None:
    nest = away.nest
    user_id = (await nest.log_in(email))["user_id"]
    database = mongo_client[nest.environment["NEST_DATABASE_PREFIX"] + "auth"]
    await nest.processes["news"].stop()
    begun = await run(nest, "users", "erase", user_id, "--yes", "--wait", "5", "--json")
    assert (begun.code, waits(json.loads(begun.out))) == (2, {"news": None})
    assert "waiting for news" in begun.err
    process = json.loads(begun.out)
    assert f"nest users erase --process {process['id']}" in begun.err
    for number in (2, 3):
        # An hour passes, and auth's clock strikes: what waits for it is due now.
        database["timers"].update_many({"type": "auth.continue-user-process"}, {"$set": {"at": datetime.now(UTC)}})
        ordered = {"_id": process["id"], "run": number}
        await eventually(lambda asked=ordered: database["user_processes"].find_one(asked), within=60)
    looked = await run(nest, "users", "erase", "--process", process["id"], "--wait", "0", "--json")
    assert (looked.code, waits(json.loads(looked.out))) == (2, {"news": None})
    await nest.processes["news"].start()
    await done(nest, process)
    later = await run(nest, "users", "erase", "--process", process["id"], "--json")
    assert (later.code, json.loads(later.out)["state"]) == (0, "done")


async def test_of_an_erasure_and_a_login_at_once_nobody_is_left_and_nobody_comes_back(nest: Stack, email: str) -> None:
    # A few at once, as on a day when many leave; tests/auth/personal_data/test_handlers.py has all the interleavings.
    for first in range(0, 20, 4):
        together = range(first, first + 4)
        await asyncio.gather(*(logged_in_while_erased(nest, f"{number}.{email}") for number in together))


async def logged_in_while_erased(nest: Stack, address: str) -> None:
    """A link of before is redeemed while its user is erased: it is unknown, or its session dies with the others."""
    first = await nest.log_in(address)
    login = Login(address)
    code = await nest.code(login)

    async def redeemed() -> Any:
        await asyncio.sleep(random.uniform(0, 0.05))
        return await nest.call("authenticate_user", login.redemption(code))

    answer, process = await asyncio.gather(redeemed(), ask(nest, "erase_user", user_id=first["user_id"]))
    await done(nest, process)
    tokens = [first]
    if answer.status_code == 200:
        assert answer.json()["user_id"] == first["user_id"]
        tokens.append(answer.json())
    else:
        assert (answer.status_code, answer.json()["code"]) == (404, "token_not_found")
    for each in tokens:
        again = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": each["refresh_token"]}
        assert (await nest.call("authenticate_user", again)).status_code == 404
    unknown = {"identifier_type": "email", "identifier_value": address}
    assert (await nest.call("find_user", unknown, **nest.internal)).status_code == 404


async def test_operators_find_export_and_erase_people_by_the_nest_command(
    nest: Stack, email: str, tmp_path: Path
) -> None:
    user_id = (await nest.log_in(email))["user_id"]
    assert user_id in (await run(nest, "users", "find", email.upper())).out
    assert email in (await run(nest, "users", "show", user_id)).out
    assert len((await run(nest, "users", "sessions", user_id)).out.splitlines()) == 2
    ended = await run(nest, "users", "sessions", user_id, "--end", "all", "--yes")
    assert len(ended.out.splitlines()) == 1, ended.err
    exported = await run(nest, "users", "export", user_id, "--to", str(tmp_path / "ada.json"))
    assert exported.code == 0, exported.err
    assert json.loads((tmp_path / "ada.json").read_text())["services"]["auth"]["users"][0]["id"] == user_id
    assert (tmp_path / "ada.json").stat().st_mode & 0o077 == 0
    unsaid = await run(nest, "users", "erase", user_id)
    assert unsaid.code == 1
    erased = await run(nest, "users", "erase", user_id, "--yes", "--json")
    assert (erased.code, json.loads(erased.out)["state"]) == (0, "done"), erased.err
    later = await run(nest, "users", "erase", "--process", json.loads(erased.out)["id"], "--json")
    assert json.loads(later.out)["state"] == "done"
    assert (await run(nest, "users", "find", email)).code == 1
