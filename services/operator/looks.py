"""`nest clients looks`: what do the mails of a client look like?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client
from services.operator.options import AsJson, Data, examples, said_in_words
from services.operator.tables import show

app = typer.Typer(no_args_is_help=True, help="See and set what a client's mails and texts look like.")
COLUMNS: Final = {"name": "WHAT", "chosen": "CHOSEN", "shown": "SHOWN"}
ClientId = Annotated[str, typer.Argument(help="The client's id.")]


@app.command("show", epilog=examples("nest clients looks show client_…"))
def show_looks(client_id: ClientId, data: Data = Path(".nest"), *, as_json: AsJson = False) -> None:
    """Show what was chosen for a client, and what its mails wear therefore."""
    with said_in_words():
        _show(Client.of(data).call("get_client_looks", {"client_id": client_id}), as_json=as_json)


@app.command("set", epilog=examples("nest clients looks set client_… --accent-colour '#0a7d4f' --locale de"))
def set_looks(
    client_id: ClientId,
    data: Data = Path(".nest"),
    *,
    product_name: Annotated[str | None, typer.Option(help="How mails call the product.")] = None,
    sender_name: Annotated[str | None, typer.Option(help="The name that mails come from.")] = None,
    sender_address: Annotated[
        str | None, typer.Option(help="The address; your mail server must be allowed to send for it.")
    ] = None,
    support_address: Annotated[str | None, typer.Option(help="Where people may write to.")] = None,
    accent_colour: Annotated[str | None, typer.Option(help="Of buttons: #rrggbb.")] = None,
    background_colour: Annotated[str | None, typer.Option(help="Behind the words: #rrggbb.")] = None,
    logo_url: Annotated[str | None, typer.Option(help="An image, shown 32 pixels high.")] = None,
    locale: Annotated[str | None, typer.Option(help="The language of people who have not said theirs: de.")] = None,
    as_json: AsJson = False,
) -> None:
    """Choose how a client's mails and texts appear; what is not given stays as it is. They do within a second."""
    given = {
        "product_name": product_name,
        "sender_name": sender_name,
        "sender_address": sender_address,
        "support_address": support_address,
        "accent_colour": accent_colour,
        "background_colour": background_colour,
        "logo_url": logo_url,
        "locale": locale,
    }
    with said_in_words():
        client = Client.of(data)
        chosen = client.call("get_client_looks", {"client_id": client_id})["chosen"]
        changed = {**chosen, **{name: value for name, value in given.items() if value is not None}}
        _show(client.call("set_client_looks", {"client_id": client_id, **changed}), as_json=as_json)


@app.command("reset", epilog=examples("nest clients looks reset client_…"))
def reset_looks(client_id: ClientId, data: Data = Path(".nest"), *, as_json: AsJson = False) -> None:
    """Let a client's mails and texts appear as the settings say."""
    with said_in_words():
        _show(Client.of(data).call("set_client_looks", {"client_id": client_id}), as_json=as_json)


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    chosen, shown = answer["chosen"], answer["shown"]
    names = [*shown, *(name for name in chosen if name not in shown)]
    rows = [{"name": name, "chosen": chosen.get(name), "shown": shown.get(name)} for name in names]
    show(answer, rows, COLUMNS, as_json=as_json)
