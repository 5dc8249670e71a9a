"""The commands of the README, as a newcomer types them, against what `make run` starts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from services.embedded import ports
from shared import topics
from tests.deploy.told import ROOT

README: Final = (ROOT / "README.md").read_text()
URL: Final = "http://127.0.0.1:8080"
START_SECONDS: Final = 60.0
MAIL_IS_THERE: Final = f"until curl -s '{URL}/dev/inbox.json?to=ann@example.com' | grep -q code=; do sleep 0.1; done"
"""What a person does between two commands: wait for the mail."""


def commands(heading: str) -> list[str]:
    """The shell commands under a heading, unindented."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE).strip() for indent, block in blocks]


@pytest.fixture
async def url(
    tmp_path: Path, kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str
) -> AsyncIterator[str]:
    """Where a `nest up` of this test's own listens."""
    await topics.apply(kafka_bootstrap, prefix=topic_prefix, most_partitions=1)
    port = ports.any_free()
    nest = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "up", "--port", str(port), "--data", str(tmp_path / "data")),
        env={
            **os.environ,
            "NEST_KAFKA_BOOTSTRAP": kafka_bootstrap,
            "NEST_MONGO_URL": mongo_url,
            "NEST_TOPIC_PREFIX": topic_prefix,
            "NEST_DATABASE_PREFIX": database_prefix,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            await _until_running(nest)
        yield f"http://127.0.0.1:{port}"
    finally:
        if nest.returncode is None:
            nest.terminate()
        await nest.communicate()


async def _until_running(nest: asyncio.subprocess.Process) -> None:
    assert nest.stdout is not None
    while line := await nest.stdout.readline():
        if b"Nest is running" in line:
            return
    raise AssertionError("nest up ended")


async def _shell(script: str) -> str:
    shell = await asyncio.create_subprocess_exec(
        "bash", "-euc", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(START_SECONDS):
        out, complaints = await shell.communicate()
    assert shell.returncode == 0, complaints.decode()
    return out.decode()


async def test_a_first_login_takes_five_commands_and_they_work(url: str) -> None:
    ask, *rest = commands("A first login by curl")
    assert len(rest) == 4

    out = await _shell("\n".join([ask, MAIL_IS_THERE, *rest]).replace(URL, url))

    answered, _, told = out.partition("\r\n\r\n")
    assert answered.startswith("HTTP/1.1 204")
    login, user = (json.loads(text) for text in told.splitlines())
    assert user["id"] == login["user_id"]
    assert [each["identifier_value"] for each in user["identifiers"]] == ["ann@example.com"]


async def test_the_first_command_shows_the_news(url: str) -> None:
    start, first = commands("Start")
    assert start == "make run"

    out = await _shell(first.replace(URL, url))

    head, _, body = out.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200")
    assert len(json.loads(body)) == 1
