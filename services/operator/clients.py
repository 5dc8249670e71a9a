"""`nest clients`: which apps may log people in, and where may they lead?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client
from services.operator.options import AsJson, Data, Yes, confirmed, examples, said_in_words
from services.operator.tables import show

app = typer.Typer(no_args_is_help=True, help="See, make and change the apps that may log people in.")
COLUMNS: Final = {
    "id": "CLIENT",
    "name": "NAME",
    "disabled": "DISABLED",
    "redirect_uris": "REDIRECT URIS",
    "version": "VERSION",
    "updated_at": "UPDATED",
}
WARNING: Final = "Nobody can log in by it, and its tokens are refused within a second.\nDisable this client?"

ClientId = Annotated[str, typer.Argument(metavar="CLIENT", help="Its id.")]
Name = Annotated[str | None, typer.Option(help="What it is called.")]
RedirectUris = Annotated[
    list[str] | None, typer.Option("--redirect-uri", help="Where its links may lead, exactly; once for each.")
]
Version = Annotated[int | None, typer.Option(help="Refuse if somebody changed it since this version.")]


@app.command("list", epilog=examples("nest clients list", "nest clients list --json"))
def list_clients(data: Data = Path(".nest"), *, as_json: AsJson = False) -> None:
    """Show every client, the oldest first."""
    with said_in_words():
        answer = Client.of(data).call("list_clients", {})
        show(answer, answer, COLUMNS, as_json=as_json)


@app.command(epilog=examples("nest clients create Beak --redirect-uri https://app.example/callback"))
def create(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    redirect_uri: Annotated[
        list[str], typer.Option("--redirect-uri", help="Where its links may lead, exactly; once for each.")
    ],
    client_id: Annotated[str | None, typer.Option("--id", help="An id of your choice.")] = None,
    data: Data = Path(".nest"),
    *,
    as_json: AsJson = False,
) -> None:
    """Register a client."""
    asked = {"name": name, "redirect_uris": redirect_uri, **({} if client_id is None else {"id": client_id})}
    with said_in_words():
        _show(Client.of(data).call("create_client", asked), as_json=as_json)


@app.command(epilog=examples("nest clients update client_… --name Beak --version 3"))
def update(
    client_id: ClientId,
    name: Name = None,
    redirect_uri: RedirectUris = None,
    version: Version = None,
    data: Data = Path(".nest"),
    *,
    as_json: AsJson = False,
) -> None:
    """Change a client's name, or all of its redirect URIs; what is left out stays."""
    asked = {"id": client_id, "name": name, "redirect_uris": redirect_uri or None, "version": version}
    with said_in_words():
        answer = Client.of(data).call(
            "update_client", {field: value for field, value in asked.items() if value is not None}
        )
        _show(answer, as_json=as_json)


@app.command(epilog=examples("nest clients disable client_… --yes"))
def disable(client_id: ClientId, data: Data = Path(".nest"), *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Let nobody log in by a client any more, and refuse its tokens everywhere within a second."""
    with said_in_words():
        client = Client.of(data)
        confirmed(WARNING, yes=yes)
        _show(client.call("update_client", {"id": client_id, "disabled": True}), as_json=as_json)


@app.command(epilog=examples("nest clients enable client_…"))
def enable(client_id: ClientId, data: Data = Path(".nest"), *, as_json: AsJson = False) -> None:
    """Let people log in by a client again; its tokens that have not expired are good again."""
    with said_in_words():
        _show(Client.of(data).call("update_client", {"id": client_id, "disabled": False}), as_json=as_json)


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    show(answer, [answer], COLUMNS, as_json=as_json)
