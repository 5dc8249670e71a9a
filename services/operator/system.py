"""`nest system`: services, instances, lag and messages per second, as a gateway sees them."""

from __future__ import annotations

from typing import Any, Final

import typer

from services.operator.client import Client
from services.operator.command_line import note
from services.operator.output import Table, columns, command

app = typer.Typer(no_args_is_help=True, help="Show services, instances, lag and messages per second.")
COLUMNS: Final = columns(
    "service, state, instances, lag_records: LAG, lag_seconds: OLDEST (S), handled_per_second: PER SECOND, "
    "expired_records: EXPIRED"
)


@app.callback()
def system() -> None:
    """Keep `show` in the command line: typer omits the name of a group's only command."""


@command(app, "show", "nest system show", "nest system show --json")
def show_system(nest: Client) -> Table:
    """Show what the gateway sees: itself, and every service through Kafka. `nest doctor` checks more."""
    response = nest.call("get_system_state", {})
    gateway = response["gateway"]
    rows: list[dict[str, Any]] = [
        {
            "service": "gateway",
            "state": "; ".join(gateway["problems"]) or "running",
            "instances": gateway["instance"],
            "handled_per_second": gateway["requests_per_second"],
        }
    ]
    rows += [
        {**each, "instances": [instance["name"] for instance in each["instances"]]} for each in response["services"]
    ]
    if response["measured_at"] is None:
        note("the gateway cannot read Kafka at the moment, so it does not see the services")
    return Table(response, rows, COLUMNS)
