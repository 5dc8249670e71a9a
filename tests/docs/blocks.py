"""Code blocks of the documents, and what the tests do with each of them.

A block of shell commands is run, in the order of its page and in one shell for the page. A block with a title, such as
`title="app.py"`, is a file in the folder of that shell. Blocks of data are parsed. What cannot be run is in
`exceptions.py`, with the reason.
"""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import yaml  # type: ignore[import-untyped]

from tests.deploy.environments import ROOT

BLOCK: Final = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<info>[a-z][^\n]*)\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
TITLE: Final = re.compile(r'title="([^"]+)"')
PLAIN: Final = re.compile(r"(?!if |for |while |until |case )[^\n'\"\\`(){}<|&]*")
"""A command in one line, for which bash need not be asked."""
DATA: Final = ("json", "yaml", "toml", "properties")
PROSE: Final = ("mermaid", "text", "promql", "http")
"""Diagrams, output, requests, and queries, whose metrics the tests of the alerts check."""
PAGES: Final = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: path of the page in the repository.
        line: line of its first line of code.
        language: the first word after the fence.
        title: path of the file that it is; empty if it is none.
        mark: text of the HTML comment in the line before it: ``background`` or ``output``.
        code: without the indentation of the block.
    """

    page: str
    line: int
    language: str
    title: str
    mark: str
    code: str

    @property
    def where(self) -> str:
        """`page:line`."""
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, in their order."""
    text = (ROOT / page).read_text()
    found = []
    for match in BLOCK.finditer(text):
        title = TITLE.search(match["info"])
        found.append(
            Block(
                page,
                text.count("\n", 0, match.start("code")) + 1,
                re.split(r"\W", match["info"])[0],
                title[1] if title else "",
                match["mark"] or "",
                textwrap.dedent(match["code"]),
            )
        )
    return found


def parse(block: Block) -> None:
    """Parse a block of data. `…` stands for something that differs or is left out.

    Raises:
        ValueError: it is not valid.
    """
    code = block.code
    if block.language == "json":
        lines = code.splitlines()
        for document in lines if len(lines) > 1 and lines[1].startswith("{") else [code]:  # JSON lines, such as logs
            json.loads(document)
    elif block.language == "toml":
        tomllib.loads(code)
    elif block.language == "properties":
        named = [line for line in code.splitlines() if line and not line.startswith("#")]
        if not all(re.fullmatch(r"[\w.>-]+ ?= ?.+", line) for line in named):
            raise ValueError(f"{block.where}: a line is no property")
    else:
        list(yaml.safe_load_all(code))


@cache
def statements(code: str) -> tuple[str, ...]:
    """Divide shell code into its commands, each with the comments before it."""
    return tuple(_statements(code))


def _statements(code: str) -> Iterator[str]:
    lines: list[str] = []
    for line in code.splitlines():
        lines.append(line)
        statement = "\n".join(lines)
        if all(not each.strip() or each.lstrip().startswith("#") for each in lines) or not _complete(statement):
            continue
        yield statement
        lines = []
    assert not [line for line in lines if line.strip() and not line.lstrip().startswith("#")], f"unfinished: {lines}"


def _complete(code: str) -> bool:
    """Whether bash can run it without a further line."""
    if PLAIN.fullmatch(code):
        return True
    checked = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
    # bash accepts a here-document and a continued line that the end of the input ends.
    return checked.returncode == 0 and "here-document" not in checked.stderr and not code.rstrip(" ").endswith("\\")
