"""`nest login` and `nest profiles`: access to several Nests, each under a name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from services.operator.client import Client, CommandError
from services.operator.output import AsJson, JsonErrors, Table, columns, example_text, one_line_errors, show
from services.operator.profiles import (
    DEFAULT,
    Profile,
    checked_key,
    checked_name,
    checked_url,
    read_profiles,
    remove_profile,
    save_profile,
)

app = typer.Typer(no_args_is_help=True, help="List and remove the profiles that nest login has stored.")
COLUMNS: Final = columns("name: PROFILE, url: URL")
MAX_KEY_FILE_BYTES: Final = 65_536


def epilog() -> str:
    """The examples at the end of the help text of `nest login`."""
    return example_text(
        "nest login production --url https://api.example.com",
        "nest login --url https://api.example.com --key-file key.txt",
        "nest users find ada@example.com --profile production",
    )


def login(
    name: Annotated[
        str, typer.Argument(metavar="PROFILE", help="Name of the profile; default is used if nothing names another.")
    ] = DEFAULT,
    *,
    url: Annotated[str, typer.Option(help="URL of the gateway: https, or http on this machine.")],
    key_file: Annotated[
        str | None,
        typer.Option(
            "--key-file", metavar="FILE", help="File with the key; - for standard input. By default it is asked for."
        ),
    ] = None,
    _json: JsonErrors = False,
) -> None:
    """Check an internal key against a Nest, and store it with the URL under a name.

    The key is one of the Nest's NEST_INTERNAL_KEYS, without its name. It is typed without echo, or read from a file or
    standard input. Only you can read the stored file.
    """
    try:
        checked_name(name)
        address = checked_url(url)
        with one_line_errors():
            text = _key_text(key_file)
        key = checked_key(text)
    except ValueError as invalid:
        raise typer.BadParameter(str(invalid)) from None
    with one_line_errors():
        # Any operators' method would do; this one has no parameters and reads little.
        Client(address, key).call("list_signing_keys", {})
        save_profile(name, Profile(address, key))
    typer.echo(f"stored profile {name} for {address}")


@app.command("list", epilog=example_text("nest profiles list", "nest profiles list --json"))
def list_profiles(*, as_json: AsJson = False) -> None:
    """List the profiles, without their keys."""
    with one_line_errors():
        rows = [{"name": name, "url": profile.url} for name, profile in sorted(read_profiles().items())]
        show(Table({"profiles": rows}, rows, COLUMNS), as_json=as_json)


@app.command("remove", epilog=example_text("nest profiles remove production"))
def remove(
    name: Annotated[str, typer.Argument(metavar="PROFILE", help="Name of the profile.")], *, _json: JsonErrors = False
) -> None:
    """Remove a profile with its key from this machine. The key stays valid."""
    with one_line_errors():
        remove_profile(name)
    typer.echo(f"removed profile {name}")


def _key_text(key_file: str | None) -> str:
    """Read the key from a file or standard input, or ask for it on the terminal."""
    if key_file is None:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to type the key on: add --key-file FILE, or - for input")
        return str(typer.prompt("Internal key", hide_input=True, err=True))
    if key_file == "-":
        return sys.stdin.read(MAX_KEY_FILE_BYTES)
    try:
        with Path(key_file).open(encoding="utf-8") as opened:
            return opened.read(MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise CommandError(f"{key_file} can't be read: {error.strerror}") from None
