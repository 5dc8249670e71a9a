"""The commands of the README, as a newcomer types them, against what `make run` starts."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Final

from tests.deploy.told import ROOT
from tests.nest_up import nest_up

README: Final = (ROOT / "README.md").read_text()
URL: Final = "http://127.0.0.1:8080"
SHELL_SECONDS: Final = 60.0
MAIL_IS_THERE: Final = f"until curl -s '{URL}/dev/inbox.json?to=ann@example.com' | grep -q code=; do sleep 0.1; done"
"""What a person does between two commands: wait for the mail."""


def commands(heading: str) -> list[str]:
    """The shell commands under a heading, unindented."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE).strip() for indent, block in blocks]


async def _shell(script: str) -> str:
    shell = await asyncio.create_subprocess_exec(
        "bash", "-euc", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SHELL_SECONDS):
        out, complaints = await shell.communicate()
    assert shell.returncode == 0, complaints.decode()
    return out.decode()


async def test_the_commands_of_the_readme_work_as_they_are_written(tmp_path: Path) -> None:
    async with nest_up(tmp_path) as nest:
        await _first_command(nest.base_url)
        await _first_login(nest.base_url)


async def _first_command(url: str) -> None:
    start, first = commands("Start")
    assert start == "make run"

    out = await _shell(first.replace(URL, url))

    head, _, body = out.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200")
    assert len(json.loads(body)) == 1


async def _first_login(url: str) -> None:
    ask, *rest = commands("A first login by curl")
    assert len(rest) <= 4, "a first login takes five commands at most"

    out = await _shell("\n".join([ask, MAIL_IS_THERE, *rest]).replace(URL, url))

    answered, _, told = out.partition("\r\n\r\n")
    assert answered.startswith("HTTP/1.1 204")
    login, user = (json.loads(text) for text in told.splitlines())
    assert user["id"] == login["user_id"]
    assert [each["identifier_value"] for each in user["identifiers"]] == ["ann@example.com"]
