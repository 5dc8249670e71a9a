"""`nest keys`: signing keys and their rotation."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from services.operator.client import Client
from services.operator.output import Table, Yes, columns, command, confirm

app = typer.Typer(no_args_is_help=True, help="List and rotate the keys that sign tokens.")
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
