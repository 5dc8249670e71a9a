"""`nest up` and `nest services` as a person meets them: real processes, real Kafka, real MongoDB."""

import asyncio
import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.embedded import ports
from services.embedded.children import start_time
from services.embedded.demo import CLIENT_ID
from tests.nest_up import NestUp, nest_up, rest, start

VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
MOST_BYTES = 700 << 20


async def call(nest: NestUp, method: str, body: dict[str, Any], token: str | None = None) -> httpx.Response:
    headers = {"authorization": f"bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=nest.base_url, timeout=20) as client:
        return await client.post(f"/1/2021-10-06/{method}", json=body, headers=headers)


async def inbox(nest: NestUp, to: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=nest.base_url) as client:
        found: list[dict[str, Any]] = (await client.get("/dev/inbox.json", params={"to": to})).json()
        return found


async def log_in(nest: NestUp, email: str) -> dict[str, Any]:
    redirect = f"{nest.base_url}/dev/callback"
    known = len(await inbox(nest, email))
    asked = await call(
        nest,
        "send_magic_link",
        {
            "client_id": CLIENT_ID,
            "redirect_uri": redirect,
            "state": "s1",
            "code_challenge_method": "S256",
            "code_challenge": CHALLENGE,
            "identifier_type": "email",
            "identifier_value": email,
            # Known after the first login, so the second need not wait a minute.
            "device": {"platform": "linux", "fingerprint": "this one"},
        },
    )
    assert asked.status_code == 204, asked.text
    async with asyncio.timeout(20):
        while len(mails := await inbox(nest, email)) == known:  # noqa: ASYNC110 - the state of another process
            await asyncio.sleep(0.05)
    link = httpx.URL(mails[0]["links"][0])
    answer = await call(
        nest,
        "authenticate_user",
        {
            "client_id": CLIENT_ID,
            "grant_type": "authorization_code",
            "redirect_uri": redirect,
            "code": link.params["code"],
            "code_verifier": VERIFIER,
        },
    )
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


async def verb(folder: Path, *words: str) -> Any:
    """What an operator's verb says as JSON, told of nothing but the data folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEST_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *words, "--data", str(folder), "--json"),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return json.loads(out)


def children(folder: Path) -> dict[str, int]:
    return {file.stem: json.loads(file.read_text())["pid"] for file in (folder / "pids").glob("*.json")}


def resident(pid: int) -> int:
    """Bytes of memory that this process holds itself, and its share of what it has in common with others."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))) << 10


async def test_a_first_start_a_login_a_stop_and_a_second_start_that_knows_it_all(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with nest_up(folder) as nest:
        port = httpx.URL(nest.base_url).port
        assert f"Nest is running at {nest.base_url}/" in nest.output
        assert CLIENT_ID in nest.output
        assert f"{nest.base_url}/dev/inbox" in nest.output
        tokens = await log_in(nest, "ada@example.com")
        [key] = (await verb(folder, "keys", "list"))["keys"]
        assert key["state"] == "active"
        running = children(folder)
        assert running.keys() == {"kafka", "mongo"}
        whole = sum(map(resident, [nest.process.pid, *running.values()]))
        assert whole < MOST_BYTES
        await nest.stop()
        assert nest.process.returncode == 0
        assert nest.output.endswith("Nest is stopping\nNest has stopped\n")
        assert [start_time(pid) for pid in running.values()] == ["", ""]
        assert children(folder) == {}

    async with nest_up(folder, port or 0) as nest:
        user = await call(nest, "get_user", {"user_id": tokens["user_id"]}, tokens["access_token"])
        assert user.json()["identifiers"][0]["identifier_value"] == "ada@example.com"
        assert len(await inbox(nest, "ada@example.com")) == 1
        again = await log_in(nest, "ada@example.com")
        assert again["user_id"] == tokens["user_id"]
        items = await call(nest, "list_news_items", {"client_id": CLIENT_ID})
        assert len(items.json()) == 1


async def test_after_a_kill_the_next_start_goes_on_where_it_was(tmp_path: Path) -> None:
    async with nest_up(tmp_path) as nest:
        tokens = await log_in(nest, "ada@example.com")
        running = children(tmp_path)
        await nest.kill()
        port = httpx.URL(nest.base_url).port
    async with nest_up(tmp_path, port or 0) as nest:
        assert not set(running.values()) & set(children(tmp_path).values())
        user = await call(nest, "get_user", {"user_id": tokens["user_id"]}, tokens["access_token"])
        assert user.status_code == 200


async def test_a_second_one_on_the_same_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    async with nest_up(tmp_path) as nest:
        other = await start(tmp_path, ports.any_free())
        said = await rest(other)
        assert await other.wait() == 1
        assert said == (
            "Nest is starting\n"
            f"nest: {tmp_path} is in use by process {nest.process.pid}: stop that one first,"
            " or give another folder with --data\n"
        )


async def test_a_taken_port_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = await start(tmp_path, port)
        said = await rest(process)
    assert await process.wait() == 1
    assert said.splitlines()[-1] == (
        f"nest: Nest can't listen on port {port}, another program has it:"
        " stop that program, or choose another port with --port or NEST_PORT"
    )


async def test_a_folder_that_cannot_be_made_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = await start(tmp_path / "file" / "data", ports.any_free())
    said = await rest(process)
    assert await process.wait() == 1
    assert re.fullmatch(r"nest: can't write to .*: give another folder with --data", said.splitlines()[-1])


async def test_told_to_stop_while_it_starts_it_leaves_nothing_behind(tmp_path: Path) -> None:
    process = await start(tmp_path, ports.any_free())
    async with asyncio.timeout(30):
        while not (tmp_path / "pids" / "kafka.json").exists():  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.01)
    process.terminate()
    async with asyncio.timeout(15):
        said = await rest(process)
    assert await process.wait() == 130, said
    assert "Traceback" not in said
    assert children(tmp_path) == {}


@pytest.mark.slow
async def test_once_installed_it_is_ready_in_five_seconds_and_stops_in_five(tmp_path: Path) -> None:
    async with nest_up(tmp_path):
        pass
    starts, stops = [], []
    for _ in range(5):
        async with nest_up(tmp_path) as nest:
            starts.append(nest.seconds)
            stops.append(await nest.stop())
    assert sorted(starts)[2] < 5
    assert max(stops) < 5
