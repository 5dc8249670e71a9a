"""`nest news`: news items that apps show."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client, CommandError
from services.operator.output import AsJson, Table, Yes, columns, command, confirm, print_json, request_body

app = typer.Typer(no_args_is_help=True, help="List, publish, change and remove news items.")
COLUMNS: Final = columns(
    "id: ITEM, title, clients, locales: LANGUAGES, subscriptions, priority, starts_at, ends_at, version"
)
PAGE: Final = 1000

ItemId = Annotated[str, typer.Argument(metavar="ITEM", help="ID of the item.")]
File = Annotated[
    typer.FileText, typer.Argument(metavar="FILE", help="The item as JSON (docs/http-api.md); - for standard input.")
]
Version = Annotated[int | None, typer.Option(help="Fail if the item was changed since this version.")]


@command(app, "list", "nest news list", "nest news list --client client_…")
def list_items(
    nest: Client, *, client: Annotated[str | None, typer.Option(help="Only items of the client with this ID.")] = None
) -> Table:
    """List all news items, also future and past ones, newest first."""
    items: list[dict[str, Any]] = []
    while True:
        cursor = items[-1]["id"] if items else None
        page = nest.call("list_all_news_items", request_body(client_id=client, cursor=cursor, limit=PAGE))
        items += page
        if len(page) < PAGE:
            return Table(items, [_row(item) for item in items], COLUMNS)


@command(app, "create", "nest news create banner.json")
def create(nest: Client, file: File) -> Table:
    """Publish an item."""
    item = nest.call("create_news_item", _read(file))
    return Table([item], [_row(item)], COLUMNS)


@command(app, "update", "nest news update newsitem_… banner.json --version 3")
def update(nest: Client, item_id: ItemId, file: File, version: Version = None) -> Table:
    """Replace an item; omitted fields get their defaults."""
    item = nest.call("update_news_item", {**_read(file), **request_body(id=item_id, version=version)})
    return Table([item], [_row(item)], COLUMNS)


@command(app, "remove", "nest news remove newsitem_… --yes")
def remove(
    nest: Client, item_id: ItemId, version: Version = None, *, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Remove an item for good."""
    confirm(f"Apps no longer show {item_id}. It cannot be restored.\nRemove it?", yes=yes)
    nest.call("remove_news_item", request_body(id=item_id, version=version))
    if as_json:
        print_json({"removed": item_id})
    else:
        typer.echo(f"removed {item_id}")


def _read(file: typer.FileText) -> dict[str, Any]:
    try:
        item = json.load(file)
    except ValueError as error:
        raise CommandError(f"{file.name} is not JSON: {error}") from None
    if not isinstance(item, dict):
        raise CommandError(f"{file.name} is not a JSON object")
    return item


def _row(item: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an item, with the title of its banner, or else the code of its content."""
    content = item["primary"]
    return {**item, "title": content["payload"].get("title") or content["code"]}
