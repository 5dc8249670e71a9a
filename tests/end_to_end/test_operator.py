"""The operators' verbs as a person types them, against a running Nest."""

import asyncio
import json
import sys
from pathlib import Path
from typing import NamedTuple

from services.embedded import demo
from tests.stack import Stack


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


async def run(nest: Stack, *words: str, **environment: str) -> Done:
    """Run `nest` with these words, told where the running one is."""
    told = {"PATH": "/usr/bin:/bin", "NEST_URL": nest.urls[0], "NEST_INTERNAL_KEY": nest.internal_key, **environment}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *words),
        env=told,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Done(process.returncode or 0, out.decode(), err.decode())


async def test_keys_are_listed_for_people_and_for_scripts(nest: Stack) -> None:
    plain = await run(nest, "keys", "list")
    assert (plain.code, plain.err) == (0, "")
    title, *lines = plain.out.splitlines()
    assert title.split("\t") == ["KEY", "ALGORITHM", "STATE", "CREATED", "SIGNS FROM", "VERIFIES UNTIL"]
    script = await run(nest, "keys", "list", "--json")
    assert [key["kid"] for key in json.loads(script.out)["keys"]] == [line.split("\t")[0] for line in lines]


async def test_a_rotation_publishes_a_key(nest: Stack) -> None:
    done = await run(nest, "keys", "rotate", "--json")
    assert (done.code, done.err) == (0, "")
    states = [key["state"] for key in json.loads(done.out)["keys"]]
    assert states[-2:] == ["active", "published"]
    again = await run(nest, "keys", "rotate", "--json")
    assert json.loads(again.out) == json.loads(done.out)


async def test_an_emergency_is_asked_about_first(nest: Stack) -> None:
    unsaid = await run(nest, "keys", "rotate", "--emergency")
    assert unsaid.code == 1
    assert "Every access token is refused from now on" in unsaid.err
    before = await run(nest, "keys", "list", "--json")
    done = await run(nest, "keys", "rotate", "--emergency", "--yes", "--json")
    assert (done.code, done.err) == (0, "")
    old = {key["kid"] for key in json.loads(before.out)["keys"]}
    [active] = [key["kid"] for key in json.loads(done.out)["keys"] if key["state"] == "active"]
    assert active not in old


async def test_what_is_in_the_way_is_one_line(nest: Stack, tmp_path: Path) -> None:
    wrong = await run(nest, "keys", "list", NEST_INTERNAL_KEY="not the key")
    nobody = await run(nest, "keys", "list", NEST_URL="http://127.0.0.1:1")
    nowhere = await run(nest, "keys", "list", "--data", str(tmp_path), NEST_URL="", NEST_INTERNAL_KEY="")
    for done, told in (
        (wrong, "rejects the internal key"),
        (nobody, "can't reach Nest at http://127.0.0.1:1"),
        (nowhere, "which Nest?"),
    ):
        assert (done.code, done.out) == (1, "")
        assert told in done.err
        assert len(done.err.splitlines()) == 1


async def test_clients_are_made_changed_and_disabled(nest: Stack) -> None:
    made = await run(nest, "clients", "create", "An app", "--redirect-uri", "https://app.example/cb", "--json")
    assert (made.code, made.err) == (0, "")
    client = json.loads(made.out)
    renamed = await run(nest, "clients", "update", client["id"], "--name", "Better", "--version", "1", "--json")
    assert json.loads(renamed.out) == {
        **client,
        "name": "Better",
        "version": 2,
        "updated_at": json.loads(renamed.out)["updated_at"],
    }
    late = await run(nest, "clients", "update", client["id"], "--name", "Worse", "--version", "1")
    assert late.code == 1
    assert "client_changed" in late.err
    unsaid = await run(nest, "clients", "disable", client["id"])
    assert unsaid.code == 1
    for verb, disabled in (("disable", "yes"), ("enable", "no")):
        done = await run(nest, "clients", verb, client["id"], *(("--yes",) if verb == "disable" else ()))
        assert done.out.splitlines()[1].split("\t")[:3] == [client["id"], "Better", disabled]
    listed = await run(nest, "clients", "list")
    assert f"{client['id']}\tBetter\tno\thttps://app.example/cb\t4" in listed.out


async def test_the_demo_client_leads_back_to_every_port_it_was_started_on(nest: Stack) -> None:
    for _ in range(2):
        for url in nest.urls:
            await demo.seed(url, nest.internal_key)
    clients = (await nest.call("list_clients", {}, **nest.internal)).json()
    [uris] = [client["redirect_uris"] for client in clients if client["id"] == demo.CLIENT_ID]
    assert [uris.count(f"{url}/dev/callback") for url in nest.urls] == [1, 1]
