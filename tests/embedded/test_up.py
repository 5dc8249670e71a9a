"""`nest up` in a process of its own, with its own Kafka and MongoDB."""

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
from services.embedded.demo import CLIENT_ID, DEMO_CLIENT_ID
from tests.nest_up import NestUp, nest_up, rest, start

VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
MAX_BYTES = 700 << 20


async def call(nest: NestUp, method: str, body: dict[str, Any], token: str | None = None) -> httpx.Response:
    headers = {"authorization": f"bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=nest.base_url, timeout=20) as client:
        return await client.post(f"/1/2021-10-06/{method}", json=body, headers=headers)


async def inbox(nest: NestUp, to: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=nest.base_url) as client:
        mails: list[dict[str, Any]] = (await client.get("/dev/inbox.json", params={"to": to})).json()
        return mails


async def log_in(nest: NestUp, email: str) -> dict[str, Any]:
    redirect = f"{nest.base_url}/dev/callback"
    before = len(await inbox(nest, email))
    requested = await call(
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
            # A known device, so that the second login need not wait a minute.
            "device": {"platform": "linux", "fingerprint": "one"},
        },
    )
    assert requested.status_code == 204, requested.text
    async with asyncio.timeout(20):
        while len(mails := await inbox(nest, email)) == before:  # noqa: ASYNC110 - the state of another process
            await asyncio.sleep(0.05)
    link = httpx.URL(mails[0]["links"][0])
    response = await call(
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
    assert response.status_code == 200, response.text
    tokens: dict[str, Any] = response.json()
    return tokens


async def run_command(folder: Path, *words: str) -> Any:
    """Run an operator command without NEST_ variables and return its JSON."""
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
    """Return the memory of a process in bytes, with its share of the pages that it shares (PSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))) << 10


async def assert_local_and_neutral(nest: NestUp) -> None:
    """Nothing that a newcomer sees or opens has a foreign name or host."""
    mail = (await inbox(nest, "ada@example.com"))[0]
    for text in (nest.output, mail["sender"], mail["subject"], mail["text"], mail["html"]):
        assert "beak" not in text.lower()
    hosts = {httpx.URL(link).host for link in mail["links"] if link.startswith("http")}
    assert hosts == {"127.0.0.1"}
    async with httpx.AsyncClient(base_url=nest.base_url) as client:
        page = await client.get("/")
        assert "beak" not in page.text.partition("Clients of documents")[0].lower()
        document = await client.get("/dev/docs/http-api.md")
        assert 'id="old-clients"' in document.text


async def test_second_start_keeps_users_and_mails(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with nest_up(folder) as nest:
        port = httpx.URL(nest.base_url).port
        assert f"Nest is running at {nest.base_url}/" in nest.output
        greeting = nest.output.partition("Nest is running at ")[2]
        for page in ("console", "dev/inbox", "dev/billing", "reference", "dev/docs"):
            assert re.search(rf" {re.escape(f'{nest.base_url}/{page}')}(\n| \()", greeting), page
        assert f"Client ID {DEMO_CLIENT_ID};" in greeting
        assert f"{nest.base_url}/dev/docs/http-api.md#old-clients\n" in greeting
        assert "warning" not in nest.output
        tokens = await log_in(nest, "ada@example.com")
        await assert_local_and_neutral(nest)
        findings = await run_command(folder, "doctor")
        assert [each for each in findings if each["level"] != "ok"] == []
        [key] = (await run_command(folder, "keys", "list"))["keys"]
        assert key["state"] == "active"
        running = children(folder)
        assert running.keys() == {"kafka", "mongo"}
        memory = sum(map(resident, [nest.process.pid, *running.values()]))
        assert memory < MAX_BYTES
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


async def test_start_after_a_kill_keeps_sessions(tmp_path: Path) -> None:
    async with nest_up(tmp_path) as nest:
        tokens = await log_in(nest, "ada@example.com")
        running = children(tmp_path)
        await nest.kill()
        port = httpx.URL(nest.base_url).port
    async with nest_up(tmp_path, port or 0) as nest:
        assert not set(running.values()) & set(children(tmp_path).values())
        user = await call(nest, "get_user", {"user_id": tokens["user_id"]}, tokens["access_token"])
        assert user.status_code == 200


async def test_second_nest_in_the_same_folder_is_a_one_line_error(tmp_path: Path) -> None:
    async with nest_up(tmp_path) as nest:
        other = await start(tmp_path, ports.any_free())
        output = await rest(other)
        assert await other.wait() == 1
        assert output == (
            "Nest is starting\n"
            f"nest: process {nest.process.pid} uses {tmp_path}: stop it first,"
            " or choose another folder with --data\n"
        )


async def test_used_port_is_a_one_line_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = await start(tmp_path, port)
        output = await rest(process)
    assert await process.wait() == 1
    assert output.splitlines()[-1] == (
        f"nest: Nest can't listen on port {port}, another program uses it:"
        " stop that program, or choose another port with --port or NEST_PORT"
    )


async def test_folder_that_cannot_be_created_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = await start(tmp_path / "file" / "data", ports.any_free())
    output = await rest(process)
    assert await process.wait() == 1
    assert re.fullmatch(r"nest: can't write to .*: choose another folder with --data", output.splitlines()[-1])


async def test_signal_during_the_start_leaves_no_process(tmp_path: Path) -> None:
    process = await start(tmp_path, ports.any_free())
    async with asyncio.timeout(30):
        while not (tmp_path / "pids" / "kafka.json").exists():  # noqa: ASYNC110 - the state of another process
            await asyncio.sleep(0.01)
    process.terminate()
    async with asyncio.timeout(15):
        output = await rest(process)
    assert await process.wait() == 130, output
    assert "Traceback" not in output
    assert children(tmp_path) == {}


@pytest.mark.slow
async def test_installed_nest_starts_and_stops_within_five_seconds(tmp_path: Path) -> None:
    async with nest_up(tmp_path):
        pass
    starts, stops = [], []
    for _ in range(5):
        async with nest_up(tmp_path) as nest:
            starts.append(nest.seconds)
            stops.append(await nest.stop())
    assert sorted(starts)[2] < 5
    assert max(stops) < 5
