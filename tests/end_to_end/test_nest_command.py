"""The `nest` command of operators against a running Nest: keys, clients, news items and connection errors."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from services.embedded import demo
from tests.stack import Stack


async def test_keys_are_listed_as_table_and_as_json(nest: Stack) -> None:
    table = await nest.command("keys", "list")
    assert (table.code, table.err) == (0, "")
    title, *lines = table.out.splitlines()
    assert title.split("\t") == ["KEY", "ALGORITHM", "STATE", "CREATED", "SIGNS FROM", "VERIFIES UNTIL"]
    script = await nest.command("keys", "list", "--json")
    assert [key["kid"] for key in json.loads(script.out)["keys"]] == [line.split("\t")[0] for line in lines]


async def test_installed_command_prints_the_same_as_a_forked_one(nest: Stack) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "keys", "list", "--json"),
        env={**os.environ, "NEST_URL": nest.urls[0], "NEST_INTERNAL_KEY": nest.internal_key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, out.decode(), err.decode()) == await nest.command("keys", "list", "--json")


async def test_rotation_publishes_a_key_once(nest: Stack) -> None:
    first = await nest.command("keys", "rotate", "--json")
    assert (first.code, first.err) == (0, "")
    states = [key["state"] for key in json.loads(first.out)["keys"]]
    assert states[-2:] == ["active", "published"]
    again = await nest.command("keys", "rotate", "--json")
    assert json.loads(again.out) == json.loads(first.out)


async def test_emergency_rotation_needs_confirmation(nest: Stack) -> None:
    unconfirmed = await nest.command("keys", "rotate", "--emergency")
    assert unconfirmed.code == 2
    assert "add --yes" in unconfirmed.err
    assert "Every access token is refused from now on" in unconfirmed.err
    before = await nest.command("keys", "list", "--json")
    rotated = await nest.command("keys", "rotate", "--emergency", "--yes", "--json")
    assert (rotated.code, rotated.err) == (0, "")
    old = {key["kid"] for key in json.loads(before.out)["keys"]}
    [active] = [key["kid"] for key in json.loads(rotated.out)["keys"] if key["state"] == "active"]
    assert active not in old


async def test_connection_error_is_one_line(nest: Stack, tmp_path: Path) -> None:
    wrong_key = await nest.command("keys", "list", NEST_INTERNAL_KEY="not the key")
    unreachable = await nest.command("keys", "list", NEST_URL="http://127.0.0.1:1")
    unspecified = await nest.command("keys", "list", "--data", str(tmp_path), NEST_URL="", NEST_INTERNAL_KEY="")
    for completed, text in (
        (wrong_key, "rejects the internal key"),
        (unreachable, "can't reach Nest at http://127.0.0.1:1"),
        (unspecified, "which Nest?"),
    ):
        assert (completed.code, completed.out) == (1, "")
        assert text in completed.err
        assert len(completed.err.splitlines()) == 1


async def test_clients_are_created_changed_and_disabled(nest: Stack) -> None:
    created = await nest.command("clients", "create", "An app", "--redirect-uri", "https://app.example/cb", "--json")
    assert (created.code, created.err) == (0, "")
    client = json.loads(created.out)
    renamed = await nest.command("clients", "update", client["id"], "--name", "Better", "--version", "1", "--json")
    assert json.loads(renamed.out) == {
        **client,
        "name": "Better",
        "version": 2,
        "updated_at": json.loads(renamed.out)["updated_at"],
    }
    late = await nest.command("clients", "update", client["id"], "--name", "Worse", "--version", "1")
    assert late.code == 1
    assert "client_changed" in late.err
    unconfirmed = await nest.command("clients", "disable", client["id"])
    assert unconfirmed.code == 2
    assert "add --yes" in unconfirmed.err
    for verb, disabled in (("disable", "yes"), ("enable", "no")):
        completed = await nest.command("clients", verb, client["id"], *(("--yes",) if verb == "disable" else ()))
        assert completed.out.splitlines()[1].split("\t")[:3] == [client["id"], "Better", disabled]
    listed = await nest.command("clients", "list")
    assert f"{client['id']}\tBetter\tno\thttps://app.example/cb\t4" in listed.out


async def test_news_item_is_created_updated_and_removed(nest: Stack, tmp_path: Path) -> None:
    file = tmp_path / "banner.json"
    banner = {"emoji": "", "title": "Down on Sunday", "body": "For an hour."}
    file.write_text(json.dumps({"primary": {"payload": banner}, "priority": 7}))
    created = await nest.command("news", "create", str(file), "--json")
    assert (created.code, created.err) == (0, "")
    (item,) = json.loads(created.out)
    listed = await nest.command("news", "list")
    (line,) = [line.split("\t") for line in listed.out.splitlines() if item["id"] in line]
    assert (line[1], line[5], line[8]) == ("Down on Sunday", "7", "1")
    file.write_text(json.dumps({"primary": {"payload": {**banner, "title": "Down on Monday"}}}))
    updated = await nest.command("news", "update", item["id"], str(file), "--version", "1")
    assert (updated.code, "Down on Monday" in updated.out) == (0, True)
    late = await nest.command("news", "update", item["id"], str(file), "--version", "1")
    assert (late.code, "news_item_changed" in late.err) == (1, True)
    unconfirmed = await nest.command("news", "remove", item["id"])
    assert unconfirmed.code == 2
    assert "add --yes" in unconfirmed.err
    removed = await nest.command("news", "remove", item["id"], "--yes")
    assert (removed.code, removed.out) == (0, f"removed {item['id']}\n")
    assert item["id"] not in (await nest.command("news", "list")).out


async def test_invalid_file_of_a_news_item_is_refused_in_one_line(nest: Stack, tmp_path: Path) -> None:
    file = tmp_path / "banner.json"
    for content, text in (("{", "is not JSON"), ("[]", "is not a JSON object"), ("{}", "validation_failed")):
        file.write_text(content)
        completed = await nest.command("news", "create", str(file))
        assert (completed.code, len(completed.err.splitlines())) == (1, 1), completed
        assert text in completed.err


async def test_demo_clients_keep_the_redirect_uri_of_every_port(nest: Stack) -> None:
    for _ in range(2):
        for url in nest.urls:
            await demo.seed(url, nest.internal_key)
    clients = (await nest.call("list_clients", {}, **nest.internal)).json()
    by_id = {client["id"]: client for client in clients}
    for platform, client_id in demo.CLIENTS.items():
        assert by_id[client_id]["name"] == f"Sample for {platform}"
        uris = by_id[client_id]["redirect_uris"]
        assert [uris.count(f"{url}/dev/callback") for url in nest.urls] == [1, 1]
        assert {*demo.CLIENT_REDIRECT_URIS} < {*uris}
    assert by_id[demo.DEMO_CLIENT_ID]["name"] == "Demo"
    assert by_id[demo.DEMO_CLIENT_ID]["redirect_uris"] == [f"{url}/dev/callback" for url in nest.urls]
