"""README commands, run verbatim against the stack that `make run` starts, in each shell."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Final

from tests.docs.blocks import blocks
from tests.nest_up import NestUp

URL: Final = "http://127.0.0.1:8080"
SHELL_SECONDS: Final = 60.0
SHELLS: Final = [each for each in ("sh", "bash", "zsh") if shutil.which(each)]
"""The shells of this machine for which README's commands are written."""


async def _shell(script: str, name: str = "bash") -> str:
    shell = await asyncio.create_subprocess_exec(
        name, "-euc", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SHELL_SECONDS):
        out, errors = await shell.communicate()
    assert shell.returncode == 0, errors.decode()
    return out.decode()


async def test_readme_commands_work_verbatim(nest: NestUp) -> None:
    start, first, paste, *rest = (block.code for block in blocks("README.md") if block.language == "sh")
    assert start == "make run\n"
    assert "make run-services" in rest[0]
    await _first_command(first, nest.base_url)
    await _first_login(paste, nest.base_url)


async def _first_command(first: str, url: str) -> None:
    out = await _shell(first.replace(URL, url))

    head, _, body = out.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200")
    assert len(json.loads(body)) == 1


async def _first_login(paste: str, url: str) -> None:
    for shell in SHELLS:
        email = f"{shell}@example.com"  # an address gets one link in a minute, a known device another one
        users = []
        # The second time the first mail is still in the inbox.
        for _ in range(2):
            out = await _shell(paste.replace(URL, url).replace("ann@example.com", email), shell)
            login, user = (json.loads(text) for text in out.splitlines())
            assert user["id"] == login["user_id"]
            assert [identifier["identifier_value"] for identifier in user["identifiers"]] == [email]
            users.append(user["id"])
        assert len({*users}) == 1
