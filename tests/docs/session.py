"""A page's session: its shell commands and files, run against a Nest in one folder and one shell."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final

from services.embedded import ports
from tests.deploy.environments import ROOT
from tests.docs.blocks import Block, statements
from tests.nest_up import NestUp

SECONDS: Final = 120.0
"""Limit of a page, beside other tests on two cores."""
MARK: Final = "=== "
START: Final = """
set -euo pipefail
pids=()
trap 'for pid in "${pids[@]}"; do kill -- "-$pid" 2>/dev/null || true; done' EXIT
background() {  # background PORT CODE
  setsid bash -euc "$2" & pids+=($!)
  for _ in $(seq 300); do
    (: </dev/tcp/127.0.0.1/"$1") 2>/dev/null && return
    kill -0 $! || return 1
    sleep 0.1
  done
  return 1
}
"""
CLIENTS: Final = ROOT / "tests/reference/clients"
TYPESCRIPT: Final = ROOT / "clients/typescript"
"""Folders with the packages of Node.js and Go that `make install-clients` installs."""
OTHERS: Final = {"5173": "5173", "9092": "9092", "27017": "27017"}
"""Ports that stay as they are: of origins, and of what no test starts."""
WITH_SETTINGS: Final = ("docs/operations.md", "docs/upgrades.md")
"""Pages whose commands run where the services run, with their environment."""
BROKER: Final = "kafka:9092"
"""Kafka of a deployment in the documents; the tests put that of their Nest in its place."""
LOCAL_PORT: Final = re.compile(r"(?:127\.0\.0\.1:|--port )(\d{4,5})\b")


class Failed(AssertionError):
    """A command of a page failed; the message has its place and output."""


async def run_page(
    blocks: Iterable[Block], nest: NestUp, folder: Path, skipped: set[tuple[str, str]]
) -> dict[str, str]:
    """Run the commands of a page except the skipped ones, and return the standard output of each block by place.

    Args:
        blocks: of one page.
        nest: the Nest that answers at 127.0.0.1:8080 in the document.
        folder: an empty folder for the files of the page.
        skipped: place of the block and command.

    Raises:
        Failed: a command ended with an error, or the output is not the documented one.
    """
    blocks = list(blocks)
    _prepare(folder, blocks)
    local = _ports(blocks, nest)
    settings = json.loads((nest.folder / "operator.json").read_text())["environment"]
    script = [START]
    for number, block in enumerate(blocks):
        code = _with_ports(block.code, local).replace(BROKER, settings["NEST_KAFKA_BOOTSTRAP"])
        if block.title:
            (folder / ".blocks").mkdir(exist_ok=True)
            (folder / ".blocks" / str(number)).write_text(code)
            title = shlex.quote(block.title)
            script.append(f"mkdir -p $(dirname {title}) && cp .blocks/{number} {title}")
        elif block.language == "sh":
            script.append(f"echo; echo '{MARK}{block.where}' | tee /dev/stderr")
            script += [
                _background(command, code) if block.mark == "background" else command
                for command, written in zip(statements(code), statements(block.code), strict=True)
                if (block.where, written) not in skipped
            ]
    given = settings if blocks[0].page in WITH_SETTINGS else {}
    out = await _bash("\n".join(script), folder, {"NEST_DATA": str(nest.folder), **given})
    printed = {place: text for place, _, text in (part.partition("\n") for part in out.split(f"\n{MARK}")[1:])}
    _compare(blocks, printed, local)
    return printed


def _prepare(folder: Path, blocks: Iterable[Block]) -> None:
    """Lay out what a reader has: the environment, the checkout beside the folder, and installed packages."""
    (folder / ".venv").symlink_to(sys.prefix)
    (folder.parent / "nest").symlink_to(ROOT)
    if any(block.language in ("js", "ts") for block in blocks):
        _link_packages(folder / "node_modules")
    if any(block.language == "go" for block in blocks):
        for name in ("go.mod", "go.sum"):
            shutil.copy(CLIENTS / "go" / name, folder / name)


def _link_packages(folder: Path) -> None:
    """Make the packages of the TypeScript client, and the client itself, available to Node.js."""
    subprocess.run([TYPESCRIPT / "node_modules/.bin/tsc", "--project", TYPESCRIPT], check=True)
    folder.mkdir()
    for package in (TYPESCRIPT / "node_modules").iterdir():
        (folder / package.name).symlink_to(package)
    (folder / "@nest").mkdir()
    (folder / "@nest/client").symlink_to(TYPESCRIPT)


def _ports(blocks: Iterable[Block], nest: NestUp) -> dict[str, str]:
    """The port of the running Nest for 8080, and a free one for each other local port that the page names."""
    named = {port for block in blocks for port in LOCAL_PORT.findall(block.code)}
    return {port: str(ports.any_free()) for port in named} | OTHERS | {"8080": nest.base_url.rpartition(":")[2]}


def _with_ports(code: str, local: dict[str, str]) -> str:
    return re.sub(r"\b\d{4,5}\b", lambda match: local.get(match[0], match[0]), code)


def _background(command: str, code: str) -> str:
    found = LOCAL_PORT.search(code)
    assert found, f"a command in the background names its port: {command}"
    return f"background {found[1]} {shlex.quote(command)}"


async def _bash(script: str, folder: Path, variables: dict[str, str]) -> str:
    """Run a script with additional variables and return its standard output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEST_")}
    environment |= variables | {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'clients/python'}",
    }
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, errors = (text.decode(errors="replace") for text in await shell.communicate())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    if shell.returncode:
        place, _, said = errors.rpartition(MARK)[2].partition("\n")
        raise Failed(f"{place} failed with {shell.returncode}:\n{said}\n{out.rpartition(MARK)[2]}")
    return out


def _compare(blocks: list[Block], printed: dict[str, str], local: dict[str, str]) -> None:
    """Compare each block marked as output with what the block before it printed.

    Each of its lines is there in this order; `…` stands for any text, and white space does not count.
    """
    for before, block in pairwise(blocks):
        if block.mark == "output":
            lines = (
                re.escape(_packed(line)).replace("…", ".*?") for line in _with_ports(block.code, local).splitlines()
            )
            if not re.search(".*?".join(lines), _packed(printed[before.where]), re.DOTALL):
                raise Failed(f"{block.where}: printed was\n{printed[before.where]}")


def _packed(text: str) -> str:
    return "".join(text.split())
