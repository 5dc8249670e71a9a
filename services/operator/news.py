"""`nest news`: what do apps show, to whom, and since when?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client
from services.operator.errors import CannotDo
from services.operator.options import AsJson, Data, Yes, confirmed, examples, said_in_words
from services.operator.tables import show

app = typer.Typer(no_args_is_help=True, help="See, publish, change and remove the news that apps show.")
COLUMNS: Final = {
    "id": "ITEM",
    "title": "TITLE",
    "clients": "CLIENTS",
    "locales": "LANGUAGES",
    "subscriptions": "SUBSCRIPTIONS",
    "priority": "PRIORITY",
    "starts_at": "STARTS",
    "ends_at": "ENDS",
    "version": "VERSION",
}
AT_ONCE: Final = 1000

ItemId = Annotated[str, typer.Argument(metavar="ITEM", help="Its id.")]
File = Annotated[
    typer.FileText, typer.Argument(metavar="FILE", help="The item as JSON, as docs/http-api.md says; - for the input.")
]
Version = Annotated[int | None, typer.Option(help="Refuse if somebody changed it since this version.")]


@app.command("list", epilog=examples("nest news list", "nest news list --client client_…"))
def list_items(
    data: Data = Path(".nest"),
    *,
    client: Annotated[str | None, typer.Option(help="Only what this client shows.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show every item, whenever and for whomever it is live, the newest first."""
    with said_in_words():
        _show(_listed(Client.of(data), {"client_id": client}), as_json=as_json)


@app.command(epilog=examples("nest news create banner.json"))
def create(file: File, data: Data = Path(".nest"), *, as_json: AsJson = False) -> None:
    """Publish an item."""
    with said_in_words():
        _show([Client.of(data).call("create_news_item", _item(file))], as_json=as_json)


@app.command(epilog=examples("nest news update newsitem_… banner.json --version 3"))
def update(
    item: ItemId, file: File, version: Version = None, data: Data = Path(".nest"), *, as_json: AsJson = False
) -> None:
    """Say anew what an item is: what the file leaves out has its default again."""
    with said_in_words():
        order = {**_item(file), "id": item, "version": version}
        _show([Client.of(data).call("update_news_item", order)], as_json=as_json)


@app.command(epilog=examples("nest news remove newsitem_… --yes"))
def remove(item: ItemId, version: Version = None, data: Data = Path(".nest"), *, yes: Yes = False) -> None:
    """Take an item away for good."""
    with said_in_words():
        client = Client.of(data)
        confirmed(f"No app shows {item} any more, and it can't be brought back.\nRemove it?", yes=yes)
        client.call("remove_news_item", {"id": item, "version": version})
        typer.echo(f"removed {item}")


def _listed(client: Client, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """All pages."""
    items: list[dict[str, Any]] = []
    while True:
        cursor = {"cursor": items[-1]["id"]} if items else {}
        page: list[dict[str, Any]] = client.call("list_all_news_items", {**wanted, **cursor, "limit": AT_ONCE})
        items += page
        if len(page) < AT_ONCE:
            return items


def _item(file: typer.FileText) -> dict[str, Any]:
    try:
        item = json.load(file)
    except ValueError as wrong:
        raise CannotDo(f"{file.name} is not JSON: {wrong}") from None
    if not isinstance(item, dict):
        raise CannotDo(f"{file.name} is not one JSON object")
    return item


def _show(items: list[dict[str, Any]], *, as_json: bool) -> None:
    rows = [{**item, "title": _title(item)} for item in items]
    show(items, rows, COLUMNS, as_json=as_json)


def _title(item: dict[str, Any]) -> str | None:
    """What its banner says first; of content of an app's own, what kind it is."""
    shown = item["primary"]
    title = shown["payload"].get("title")
    return str(title) if title else shown["code"]
