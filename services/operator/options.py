"""What do all verbs take, and how do they end when something is in the way?"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from services.operator.errors import CannotDo

Data = Annotated[
    Path,
    typer.Option("--data", envvar="NEST_DATA", help="The folder of nest up; NEST_URL and NEST_INTERNAL_KEY go first."),
]
AsJson = Annotated[bool, typer.Option("--json", help="All that Nest says, as JSON, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def examples(*lines: str) -> str:
    """What stands below a verb's help: each example on a line of its own, as it can be typed."""
    told = (f"  [bold]{line}[/bold]" for line in lines)
    return "\n".join(("Examples:" if len(lines) > 1 else "Example:", *told))


@contextmanager
def said_in_words() -> Iterator[None]:
    """Makes one line on standard error and exit code 1 of whatever is in the way."""
    try:
        yield
    except CannotDo as error:
        typer.echo(f"nest: {error}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def without_logs() -> Iterator[None]:
    """Keeps what libraries complain of from the terminal: the verb says it in its own words."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def confirmed(question: str, *, yes: bool) -> None:
    """Go on only when the person says so; without a terminal to ask on, ``--yes`` says so.

    Raises:
        typer.Abort: they don't.
    """
    if not yes:
        typer.confirm(question, abort=True, err=True)
