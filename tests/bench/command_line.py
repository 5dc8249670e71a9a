"""Command line of the benchmarks that write tables of ``docs/scale.md``: ``growth`` and ``scale_out``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import markdown
from tests.bench.scale import DOCUMENT

Cells = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Head and rows of a table."""


def add_options(parser: argparse.ArgumentParser, *, seconds: float) -> None:
    """Add the options of rounds and output; a round takes ``seconds`` by default."""
    option: Any = parser.add_argument
    option("--runs", type=int, default=3, help="measured rounds, of which the median counts (default 3)")
    option("--seconds", type=float, default=seconds, help=f"duration of a round (default {seconds:g})")
    option("--codes-per-second", type=int, default=400, help="codes that no round exceeds (default 400)")
    option("--document", action="store_true", help=f"write the tables into {DOCUMENT}")
    option("--json", type=Path, metavar="FILE", help="write the results to this file too")


def console() -> Console:
    """A console as wide as the terminal, or of 132 columns if there is none."""
    return Console(width=None if sys.stdout.isatty() else 132)


def finish(
    options: argparse.Namespace, output: Console, tables: Mapping[str, Cells], results: Mapping[str, Any]
) -> None:
    """Print tables; write them into the document, and the results as JSON, if the options say so."""
    for name, (head, rows) in tables.items():
        table = Table(title=name, title_justify="left")
        for number, column in enumerate(head):
            table.add_column(column, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        output.print(table)
    if options.document:
        texts = {name: markdown.table(head, rows) for name, (head, rows) in tables.items()}
        DOCUMENT.write_text(markdown.render(DOCUMENT.read_text(), texts))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
