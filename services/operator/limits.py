"""`nest limits`: the rate limits, and how far somebody has used them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import typer

from services.operator.client import Client
from services.operator.output import Table, columns, command, request_body

app = typer.Typer(no_args_is_help=True, help="Show the rate limits, and how far somebody has used them.")
UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
COLUMNS: Final = columns("name: LIMIT, rules: ALLOWS, used, free_at, setting")


@app.callback()
def limits() -> None:
    """Keep `list` in the command line: typer omits the name of a group's only command."""


@command(
    app, "list", "nest limits list", "nest limits list address ada@example.com", "nest limits list network 203.0.113.7"
)
def list_limits(
    nest: Client,
    kind: Annotated[
        Literal["address", "number", "network", "client", "country"] | None,
        typer.Argument(help="What SUBJECT is: an email address, phone number, IP address, client ID or country code."),
    ] = None,
    subject: Annotated[str | None, typer.Argument(help="Whose uses are shown.")] = None,
) -> Table:
    """List the rate limits; with a subject those that count it, and its present uses."""
    if (kind is None) != (subject is None):
        raise typer.BadParameter("give KIND and SUBJECT, or neither")
    response = nest.call("list_rate_limits", request_body(kind=kind, subject=subject))
    return Table(response, [_row(limit) for limit in response["limits"]], COLUMNS)


def _period(seconds: int) -> str:
    """A period as in the settings: ``5m``, ``1h``."""
    unit, length = next((unit, length) for unit, length in UNITS.items() if seconds % length == 0)
    return f"{seconds // length}{unit}"


def _row(limit: dict[str, Any]) -> dict[str, Any]:
    rules = limit["rules"]
    used = [str(rule["used"]) for rule in rules if rule["used"] is not None]
    return {
        **limit,
        "rules": ", ".join(f"{rule['count']}/{_period(rule['seconds'])}" for rule in rules) or "none",
        "used": ", ".join(used) or None,
    }
