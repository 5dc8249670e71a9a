"""Generated tables of documents, each between two comments: ``<!-- table NAME -->`` and ``<!-- end -->``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(text: str) -> str:
    """A block of preformatted text."""
    return f"```text\n{text}```\n"


def render(document: str, tables: Mapping[str, str]) -> str:
    """The document with these tables, by name, written anew."""
    for name, text in tables.items():
        begin, end = f"<!-- table {name} -->\n", "<!-- end -->"
        document = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}",
            lambda _, text=begin + text + end: text,  # type: ignore[misc]
            document,
            flags=re.DOTALL,
        )
    return document
