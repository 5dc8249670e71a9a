"""`nest keys`: signing keys and their rotation, and the replacement of sealing keys."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client
from services.operator.output import (
    AsJson,
    Table,
    Yes,
    columns,
    command,
    confirm,
    example_text,
    one_line_errors,
    print_json,
    without_logs,
)

app = typer.Typer(no_args_is_help=True, help="List and rotate the keys that sign tokens, and replace sealing keys.")
COLUMNS: Final = columns("kid: KEY, algorithm, state, created_at, signs_from, verifies_until")
WARNING: Final = (
    "Every access token is refused from now on. Users stay logged in: their apps refresh.\nReplace all signing keys?"
)


@command(app, "list", "nest keys list", "nest keys list --json")
def list_keys(nest: Client) -> Table:
    """List the keys that verify tokens, oldest first."""
    response = nest.call("list_signing_keys", {})
    return Table(response, response["keys"], COLUMNS)


@command(app, "rotate", "nest keys rotate", "nest keys rotate --emergency")
def rotate(
    nest: Client,
    *,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="After a leak: a new key signs at once, all others are withdrawn.")
    ] = False,
    yes: Yes = False,
) -> Table:
    """Replace the signing key: the new key is published now and signs after its lead time. Users notice nothing.

    With --emergency it signs at once, and every other key is withdrawn everywhere within a second.
    """
    if emergency:
        confirm(WARNING, yes=yes)
    response = nest.call("rotate_signing_keys", {"emergency": emergency})
    return Table(response, response["keys"], COLUMNS)


@app.command("reseal", epilog=example_text("nest keys reseal", "nest keys reseal --service mailer --json"))
def reseal(
    service: Annotated[list[str] | None, typer.Option(help="Only the database of this service.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Seal with the first sealing key what older ones have sealed in the databases, while the services run.

    Takes the services' variables: NEST_SEALING_KEYS, NEST_MONGO_URL and NEST_DATABASE_PREFIX. May be interrupted and
    repeated. Prints what is left under each older key.
    """
    from services.operator.databases import chosen_services  # noqa: PLC0415 -- would slow down `nest --help`
    from services.operator.reseal import reseal_all  # noqa: PLC0415

    wanted = chosen_services(service)
    shows_progress = not as_json and sys.stderr.isatty()

    def progress(name: str, documents: int) -> None:
        if shows_progress:
            typer.echo(f"\r{name}: {documents} documents read", err=True, nl=False)

    with one_line_errors(), without_logs():
        outcomes = asyncio.run(reseal_all(wanted, progress))
    if shows_progress:
        typer.echo("", err=True)
    left = _left(outcomes)
    if as_json:
        print_json({"services": _services(outcomes), "left": left})
        return
    for each in _services(outcomes):
        typer.echo("{service}: {documents} documents read, {resealed} values sealed again".format(**each))
    for each in left:
        typer.echo("{count} left under {key} in {collection}: {what}".format(**each))
    if not left:
        typer.echo("nothing in these databases needs an older key")


def _services(outcomes: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"service": name, "documents": outcome.documents, "resealed": outcome.resealed.total()}
        for name, outcome in outcomes.items()
    ]


def _left(outcomes: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key_id, "collection": f"{name}.{collection}", "what": what, "count": count}
        for name, outcome in outcomes.items()
        for (key_id, collection, what), count in sorted(outcome.left.items())
    ]
