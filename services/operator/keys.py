"""`nest keys`: which keys sign tokens, and how does a new one take over?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client
from services.operator.options import AsJson, Data, Yes, confirmed, examples, said_in_words
from services.operator.tables import show

app = typer.Typer(no_args_is_help=True, help="See and rotate the keys that sign tokens.")
COLUMNS: Final = {
    "kid": "KEY",
    "algorithm": "ALGORITHM",
    "state": "STATE",
    "created_at": "CREATED",
    "signs_from": "SIGNS FROM",
    "verifies_until": "VERIFIES UNTIL",
}
WARNING: Final = (
    "Every access token is refused from now on. People stay logged in: their apps refresh.\nReplace all signing keys?"
)

Emergency = Annotated[
    bool, typer.Option("--emergency", help="A key has leaked: a new one signs at once, all others are withdrawn.")
]


@app.command("list", epilog=examples("nest keys list", "nest keys list --json"))
def list_keys(data: Data = Path(".nest"), *, as_json: AsJson = False) -> None:
    """Show every key that verifies tokens, oldest first."""
    with said_in_words():
        _show(Client.of(data).call("list_signing_keys", {}), as_json=as_json)


@app.command(epilog=examples("nest keys rotate", "nest keys rotate --emergency"))
def rotate(
    data: Data = Path(".nest"), *, emergency: Emergency = False, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Let a new key take over: published now, signing after its lead time. Nobody notices.

    With --emergency it signs at once, and every other key is withdrawn everywhere within a second.
    """
    with said_in_words():
        client = Client.of(data)
        if emergency:
            confirmed(WARNING, yes=yes)
        _show(client.call("rotate_signing_keys", {"emergency": emergency}), as_json=as_json)


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    show(answer, answer["keys"], COLUMNS, as_json=as_json)
