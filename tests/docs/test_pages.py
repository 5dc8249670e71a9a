"""Every command and sample of the documents is run, or is an exception with a reason."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import pytest

from tests.docs.blocks import DATA, PAGES, PROSE, Block, blocks, parse, statements
from tests.docs.exceptions import COMMANDS, FRAGMENTS
from tests.docs.session import run_page
from tests.nest_up import NestUp

BLOCKS: Final = {page: blocks(page) for page in PAGES}
FIRST: Final = ("docs/start/python.md", "docs/start/typescript.md")
"""Pages that are run with every change; `make test-docs` runs all."""


def exception(block: Block, command: str) -> tuple[str, str] | None:
    """The entry of the exceptions that names a command."""
    first = next(line for line in command.splitlines() if line.strip() and not line.lstrip().startswith("#")).strip()
    entries = (each for each in COMMANDS if fnmatchcase(block.page, each[0]) and first.startswith(each[1]))
    return next(entries, None)


def skipped(page: str) -> set[tuple[str, str]]:
    return {
        (block.where, command)
        for block in BLOCKS[page]
        if block.language == "sh" and not block.title
        for command in statements(block.code)
        if exception(block, command)
    }


def runs(page: str) -> bool:
    """Whether the page has a command to run."""
    commands = sum(
        len(list(statements(each.code))) for each in BLOCKS[page] if each.language == "sh" and not each.title
    )
    return commands > len(skipped(page))


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_parsed_or_an_exception(page: str) -> None:
    named = " ".join(each.code for each in BLOCKS[page] if each.language == "sh" or each.title)
    for block in BLOCKS[page]:
        if (block.language == "sh" and not block.title) or block.language in PROSE or block.mark == "output":
            continue
        if any(fnmatchcase(page, each[0]) and each[1] in block.code for each in FRAGMENTS):
            continue
        if block.language in DATA:
            parse(block)
            continue
        assert block.title, f"{block.where}: a {block.language} block needs a title, or a reason"
        words = "test" if "test" in block.title else Path(block.title).stem
        assert words in named.replace(block.code, ""), f"{block.where}: nothing uses {block.title}"


def test_every_exception_is_needed() -> None:
    needed = {
        exception(block, command)
        for page in PAGES
        for block in BLOCKS[page]
        if block.language == "sh" and not block.title
        for command in statements(block.code)
    }
    assert set(COMMANDS) - needed == set()
    for page, text in FRAGMENTS:
        assert any(fnmatchcase(each, page) and text in block.code for each in PAGES for block in BLOCKS[each]), text
    assert all({**COMMANDS, **FRAGMENTS}.values())


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page in FIRST else pytest.mark.slow)
        for page in sorted(PAGES, key=lambda page: page not in FIRST)
        if runs(page) and page != "README.md"  # test_readme.py runs it
    ],
)
async def test_commands_of_the_page_work(page: str, nest: NestUp, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    await run_page(BLOCKS[page], nest, folder, skipped(page))
