"""`nest services` in a process of its own."""

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.embedded import ports
from services.embedded.children import start_time
from services.embedded.demo import CLIENT_ID
from tests.nest_up import READY_SECONDS, STOP_SECONDS, rest
from tests.stack import eventually


async def start(folder: Path, port: int) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEST_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "services", "--data", str(folder), "--port", str(port)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )


async def until(process: asyncio.subprocess.Process, *patterns: str) -> str:
    """Return the output once every pattern matches."""
    assert process.stdout
    printed = ""
    async with asyncio.timeout(READY_SECONDS):
        while not all(re.search(pattern, printed, re.MULTILINE) for pattern in patterns):
            line = await process.stdout.readline()
            assert line, f"it exited:\n{printed}"
            printed += line.decode()
    return printed


def pids(folder: Path) -> dict[str, int]:
    return {file.stem: json.loads(file.read_text())["pid"] for file in (folder / "pids").glob("*.json")}


async def test_five_processes_print_logs_and_stop_together(tmp_path: Path) -> None:
    port = ports.any_free()
    process = await start(tmp_path, port)
    try:
        started = [rf"^ *{name} │ .*started" for name in ("gateway", "auth", "billing", "mailer", "news")]
        printed = await until(process, "Ctrl-C stops it", *started)
        running = pids(tmp_path)
        assert running.keys() == {"kafka", "mongo", "gateway", "auth", "billing", "mailer", "news"}
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{port}/1/2021-10-06/list_news_items"

            async def listed() -> list[Any]:
                return (await client.post(url, json={"client_id": CLIENT_ID})).json()

            # The news service reads a new item from its topic.
            items = await eventually(listed, what="the news")
            assert len(items) == 1
            page = re.search(r"http://\S+/dev/inbox", printed)
            assert page
            shown = (await client.get(page[0])).text
            assert "Nothing has arrived yet" in shown
            assert f"curl -s '{page[0]}.json?" in shown
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_SECONDS):
            await rest(process)
            assert await process.wait() == 0
        assert {start_time(pid) for pid in running.values()} == {""}
        assert pids(tmp_path) == {}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.slow
async def test_exit_of_one_service_stops_the_others_and_is_named(tmp_path: Path) -> None:
    process = await start(tmp_path, ports.any_free())
    try:
        await until(process, "Ctrl-C stops it")
        os.kill(pids(tmp_path)["billing"], signal.SIGKILL)
        async with asyncio.timeout(STOP_SECONDS):
            output = await rest(process)
            assert await process.wait() == 1
        assert "nest: billing exited with code -9: see its last lines above" in output
        assert pids(tmp_path) == {}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
