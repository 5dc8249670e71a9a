"""README commands, run verbatim against the stack that `make run` starts."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Final

from tests.deploy.environments import ROOT
from tests.nest_up import nest_up

README: Final = (ROOT / "README.md").read_text()
URL: Final = "http://127.0.0.1:8080"
SHELL_SECONDS: Final = 60.0
SHELLS: Final = [each for each in ("sh", "bash", "zsh") if shutil.which(each)]
"""The shells of this machine for which README's commands are written."""


def commands(heading: str) -> list[str]:
    """Return the shell commands under a heading, without indentation."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE).strip() for indent, block in blocks]


async def _shell(script: str, name: str = "bash") -> str:
    shell = await asyncio.create_subprocess_exec(
        name, "-euc", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SHELL_SECONDS):
        out, errors = await shell.communicate()
    assert shell.returncode == 0, errors.decode()
    return out.decode()


async def test_readme_commands_work_verbatim(tmp_path: Path) -> None:
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
    (paste,) = commands("First login with curl")
    users = []
    # The second time the first mail is still in the inbox.
    for shell in (*SHELLS, *SHELLS):
        out = await _shell(paste.replace(URL, url), shell)
        login, user = (json.loads(text) for text in out.splitlines())
        assert user["id"] == login["user_id"]
        assert [identifier["identifier_value"] for identifier in user["identifiers"]] == ["ann@example.com"]
        users.append(user["id"])
    assert len({*users}) == 1
