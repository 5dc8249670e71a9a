"""How is an answer shown? To people on a terminal, as plain lines in a pipe, as JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import typer

COLOURS: Final = {
    **dict.fromkeys(("active", "done", "delivered", "succeeded", "trialing", "verified", "won"), "green"),
    **dict.fromkeys(("queued", "running", "waiting", "published", "past_due", "incomplete", "suppressed"), "yellow"),
    **dict.fromkeys(("failed", "refused", "bounced", "unpaid", "canceled", "lost", "failing"), "red"),
}
"""What somebody who skims a list looks for: what went well, what is not over, what went wrong."""
BETWEEN: Final = 2
"""Spaces between two columns."""


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
    elif sys.stdout.isatty():
        _show_people(rows, columns)
    else:
        cells = [[_text(row.get(field)) for field in columns] for row in rows]
        for line in (list(columns.values()), *cells):
            typer.echo("\t".join(line))


def plain(text: str, *, lines: bool = False) -> str:
    """A text without what would steer a terminal: on one line, or, where ``lines`` are kept, on its own."""
    return "".join(each if each.isprintable() or (lines and each == "\n") else " " for each in text)


def _show_people(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """A table where it fits; else every row by itself, since nobody can read or copy an id in pieces."""
    # Here, so that `nest --help` needs not wait for it.
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    console = Console()
    if not rows:
        console.print("none")
        return
    cells = [[_for_people(row.get(field)) for field in columns] for row in rows]
    titles = list(columns.values())
    widths = (max(map(cell_len, column)) for column in zip(titles, *cells, strict=True))
    if sum(widths) + BETWEEN * (len(titles) - 1) <= console.width:
        console.print(_table(titles, cells))
        return
    for number, row in enumerate(rows):
        if number:
            console.print()
        console.print(_record(row, columns))


def _table(titles: Sequence[str], cells: Sequence[Sequence[str]]) -> Any:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, BETWEEN, 0, 0))
    for title in titles:
        table.add_column(title, no_wrap=True)
    for line in cells:
        table.add_row(*map(_coloured, line))
    return table


def _record(row: Mapping[str, Any], columns: Mapping[str, str]) -> Any:
    """A line for each field that says something, and for each of several values."""
    from rich.table import Table  # noqa: PLC0415

    record = Table.grid(padding=(0, BETWEEN, 0, 0))
    record.add_column(style="bold", no_wrap=True)
    record.add_column(overflow="fold")
    for field, title in columns.items():
        value = row.get(field)
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                record.add_row(title, _coloured(_for_people(each)))
                title = ""  # noqa: PLW2901 -- said once
    return record


def _coloured(cell: str) -> Any:
    from rich.text import Text  # noqa: PLC0415

    # As it is: what Nest says is no markup.
    return Text(cell, style=COLOURS.get(cell, ""))


def _for_people(value: Any) -> str:
    """As in a pipe, but for times, which are shown to the second, in UTC as Nest says them."""
    text = _text(value)
    if not isinstance(value, str) or not text.endswith("Z"):
        return text
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%SZ}"
    except ValueError:
        return text


def _text(value: Any) -> str:
    """A value in one cell, on one line, and without what would steer a terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(_text, value)) or "-" if isinstance(value, list) else str(value)
    return plain(text)
