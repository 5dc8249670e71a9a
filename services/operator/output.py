"""Operator commands: registration, common options, and output as tables, tab-separated lines or JSON."""

from __future__ import annotations

import inspect
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import typer

from services.operator.client import Client, CommandError
from services.operator.command_line import note, print_error

COLOURS: Final = {
    **dict.fromkeys(("active", "done", "delivered", "succeeded", "trialing", "verified", "won"), "green"),
    **dict.fromkeys(("queued", "running", "waiting", "published", "past_due", "incomplete", "suppressed"), "yellow"),
    **dict.fromkeys(("failed", "refused", "bounced", "unpaid", "canceled", "lost", "failing"), "red"),
}
"""Colours of states: success, in progress, failure."""
COLUMN_GAP: Final = 2
TIME_FORMATS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="NEST_DATA",
        help="Data folder of nest up. Profiles and variables take precedence over NEST_DATA.",
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(metavar="PROFILE", help="Profile of nest login; NEST_PROFILE names one too, with lower precedence."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole response, or the error, as JSON.")]
JsonErrors = Annotated[bool, typer.Option("--json", help="Print an error as JSON.")]
"""For a parameter ``_json`` of a command whose output is text for people."""
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Since = Annotated[
    datetime | None,
    typer.Option(formats=TIME_FORMATS, metavar="TIME", help="At this time or later: 2026-11-20T06:05, UTC."),
]
Until = Annotated[datetime | None, typer.Option(formats=TIME_FORMATS, metavar="TIME", help="Before this time, UTC.")]
Limit = Annotated[int, typer.Option(min=1, max=500, help="Maximum number of entries.")]


@dataclass(frozen=True, slots=True)
class Table:
    """Result of a command: the whole response for JSON, and its entries with column titles by field."""

    response: Any
    rows: Sequence[Mapping[str, Any]]
    columns: Mapping[str, str]


def columns(text: str) -> dict[str, str]:
    """Return column titles by field from ``field: TITLE, field, …``.

    The default title is the field's name in capitals, without ``_at`` or ``_id`` at its end.
    """
    pairs = ((field.strip(), title.strip()) for field, _, title in (each.partition(":") for each in text.split(",")))
    return {field: title or re.sub("_(at|id)$", "", field).replace("_", " ").upper() for field, title in pairs}


Function = TypeVar("Function", bound=Callable[..., Table | None])


def command(app: typer.Typer, name: str, *examples: str) -> Callable[[Function], Function]:
    """Register a function as a command of an app, with its docstring as help text.

    The function's first parameter, ``nest``, receives the client of the selected Nest. The command gets the function's
    other parameters as arguments and options, and the options ``--data``,
    ``--profile`` and ``--json``. If it returns a Table, that is
    printed. A CommandError ends the command as `one_line_errors` does. The help text ends with the examples.
    """

    def register(function: Function) -> Function:
        hints = get_type_hints(function, include_extras=True)
        own = inspect.signature(function).parameters.items()
        parameters = [parameter.replace(annotation=hints[name]) for name, parameter in own if name != "nest"]
        parameters.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
        parameters += [_option("data", Data, Path(".nest")), _option("profile", Profile, None)]
        if returns_table := hints["return"] is Table:
            parameters.append(_option("as_json", AsJson, default=False))
        elif "as_json" not in hints:
            parameters.append(_option("_json", JsonErrors, default=False))

        def run(*, context: typer.Context, data: Path, profile: str | None, **arguments: Any) -> None:
            as_json = arguments.pop("as_json") if returns_table else False
            arguments.pop("_json", None)
            with one_line_errors():
                table = function(selected_nest(context, data, profile), **arguments)
                if table is not None:
                    show(table, as_json=as_json)

        # typer reads both.
        run.__dict__["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, help=inspect.getdoc(function), epilog=example_text(*examples))(run)
        return function

    return register


def selected_nest(context: typer.Context, data: Path, profile: str | None) -> Client:
    """Return the client that the options ``--data`` and ``--profile`` select; see `Client.of`.

    Raises:
        CommandError: as `Client.of`.
        typer.BadParameter: both options are given.
    """
    source = context.get_parameter_source("data")
    data_chosen = source is not None and source.name == "COMMANDLINE"
    if data_chosen and profile is not None:
        raise typer.BadParameter("give --profile or --data, not both")
    return Client.of(data, profile, data_chosen=data_chosen)


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def example_text(*lines: str) -> str:
    """Return the end of a help text: each example on its own line, as it is typed."""
    return "\n".join(("Examples:" if len(lines) > 1 else "Example:", *(f"  [bold]{line}[/bold]" for line in lines)))


def request_body(**options: Any) -> dict[str, Any]:
    """Return the fields of a request: options that were not given are omitted, times are UTC."""
    return {
        name: value.replace(tzinfo=UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in options.items()
        if value is not None
    }


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a CommandError in one line on standard error, as an object with ``--json``, and exit with its code."""
    try:
        yield
    except CommandError as error:
        print_error(
            str(error),
            code=error.code,
            message=error.message,
            docs=error.docs,
            request_id=error.request_id,
            meta=error.meta,
        )
        raise typer.Exit(error.exit_code) from None


@contextmanager
def without_logs() -> Iterator[None]:
    """Suppress the logs of libraries; the command reports their errors itself."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def confirm(question: str, *, yes: bool) -> None:
    """Continue if ``yes`` is set or the person confirms.

    The last line is the question. Where nobody can answer, only the lines before it are printed.

    Raises:
        typer.Abort: the person does not confirm.
        typer.BadParameter: there is neither a terminal nor an answer on standard input.
    """
    if yes:
        return
    if sys.stdin.isatty():
        confirmed = typer.confirm(question, err=True)
    else:
        # The answer comes first, so that nothing is asked where nobody can answer.
        answer = sys.stdin.readline()
        if not answer:
            if warning := question.rpartition("\n")[0]:
                note(warning)
            raise typer.BadParameter("there is no terminal to confirm on: add --yes")
        note(question)
        confirmed = answer.strip().lower() in ("y", "yes")
    if not confirmed:
        raise typer.Abort


def print_json(value: Any) -> None:
    """Print indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show(table: Table, *, as_json: bool = False) -> None:
    """Print a table: as JSON, as a table or records on a terminal, as tab-separated lines elsewhere."""
    if as_json:
        print_json(table.response)
    elif sys.stdout.isatty():
        _show_on_terminal(table)
    else:
        cells = [[_text(row.get(field)) for field in table.columns] for row in table.rows]
        for line in (list(table.columns.values()), *cells):
            typer.echo("\t".join(line))


def plain(text: str, *, lines: bool = False) -> str:
    """Replace control characters, which could steer a terminal, by spaces; ``lines`` keeps line breaks."""
    return "".join(each if each.isprintable() or (lines and each == "\n") else " " for each in text)


def _show_on_terminal(table: Table) -> None:
    """Print a table if it fits; otherwise each row as a record, because a wrapped ID cannot be copied."""
    # These imports would slow down `nest --help`.
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table as Grid  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    def coloured(text: str) -> Text:
        return Text(text, style=COLOURS.get(text, ""))  # A Text is not parsed as markup.

    console = Console()
    if not table.rows:
        console.print("none")
        return
    titles = list(table.columns.values())
    cells = [[_terminal_text(row.get(field)) for field in table.columns] for row in table.rows]
    widths = (max(map(cell_len, column)) for column in zip(titles, *cells, strict=True))
    if sum(widths) + COLUMN_GAP * (len(titles) - 1) <= console.width:
        grid = Grid(*titles, box=None, header_style="bold", pad_edge=False, padding=(0, COLUMN_GAP, 0, 0))
        for line in cells:
            grid.add_row(*map(coloured, line))
        console.print(grid)
        return
    for number, row in enumerate(table.rows):
        record = Grid.grid(padding=(0, COLUMN_GAP, 0, 0))
        record.add_column(style="bold", no_wrap=True)
        record.add_column(overflow="fold")
        for field, title in table.columns.items():
            value = row.get(field)
            values = [each for each in (value if isinstance(value, list) else [value]) if each is not None]
            for position, each in enumerate(values):
                record.add_row("" if position else title, coloured(_terminal_text(each)))
        if number:
            console.print()
        console.print(record)


def _terminal_text(value: Any) -> str:
    """Return the text of a cell; times are shown to the second."""
    text = _text(value)
    if not isinstance(value, str) or not text.endswith("Z"):
        return text
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%SZ}"
    except ValueError:
        return text


def _text(value: Any) -> str:
    """Return a value as one line without control characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return plain(", ".join(map(_text, value)) or "-" if isinstance(value, list) else str(value))
