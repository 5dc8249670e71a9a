"""`nest partitions`: list and resume paused partitions."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from services.operator.client import Client
from services.operator.output import AsJson, Table, Yes, columns, command, confirm, print_json

app = typer.Typer(no_args_is_help=True, help="List paused partitions, and resume them.")
COLUMNS: Final = columns("id: PARTITION, reason, offset: WAITS FROM, since, instance, release")
DEAD_LETTER_WARNING: Final = (
    "Every record that fails becomes a dead letter, however many do, until one succeeds.\nResume it?"
)


@command(app, "list", "nest partitions list")
def list_partitions(nest: Client) -> Table:
    """List the partitions that services have paused after ten dead letters in a row."""
    response = nest.call("list_paused_partitions", {})
    return Table(response, response["partitions"], COLUMNS)


@command(
    app,
    "resume",
    "nest partitions resume mailer/mailer.commands/3",
    "nest partitions resume mailer/mailer.commands/3 --dead-letter",
)
def resume(
    nest: Client,
    partition: Annotated[str, typer.Argument(metavar="PARTITION", help="ID of the partition, as listed.")],
    *,
    dead_letter: Annotated[
        bool, typer.Option("--dead-letter", help="Let all records that fail become dead letters until one succeeds.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Resume a paused partition at its first waiting record.

    By default its records are tried, and ten further dead letters in a row pause it again.
    """
    if dead_letter:
        confirm(DEAD_LETTER_WARNING, yes=yes)
    nest.call("resume_partition", {"id": partition, "dead_letter": dead_letter})
    if as_json:
        print_json({"resumed": partition})
    else:
        typer.echo(f"resumed {partition}")
