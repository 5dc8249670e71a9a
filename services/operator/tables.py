"""How is an answer shown? As a table on a terminal, as plain lines in a pipe, as JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer


def show(answer: Any, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, as_json: bool) -> None:
    """Show a list.

    Args:
        answer: all that Nest said; what JSON shows.
        rows: the list in it.
        columns: the fields to show of each, with their titles.
        as_json: for a script.
    """
    if as_json:
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    cells = [[_text(row.get(field)) for field in columns] for row in rows]
    if not sys.stdout.isatty():
        for line in (list(columns.values()), *cells):
            typer.echo("\t".join(line))
        return
    # Here, so that `nest --help` needs not wait for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in columns.values():
        table.add_column(title, overflow="fold")
    for line in cells:
        # As it is: what Nest says is no markup.
        table.add_row(*map(Text, line))
    Console().print(table)


def plain(text: str, *, lines: bool = False) -> str:
    """A text without what would steer a terminal: on one line, or, where ``lines`` are kept, on its own."""
    return "".join(each if each.isprintable() or (lines and each == "\n") else " " for each in text)


def _text(value: Any) -> str:
    """A value in one cell, on one line, and without what would steer a terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
    return plain(text)
