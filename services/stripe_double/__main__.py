"""`python -m services.stripe_double`: the Stripe double as a program of its own."""

import asyncio
import signal
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from services.stripe_double import StripeDouble

_EXAMPLES = """Examples:
  python -m services.stripe_double
  python -m services.stripe_double --folder .stripe --port 12111
  python -m services.stripe_double --webhook-secret whsec_1 \\
      --webhook-url http://127.0.0.1:8080/1/webhook/stripe
  curl -u sk_test_double: 127.0.0.1:12111/v1/customers -d email=ada@example.com
  curl -u sk_test_double: 127.0.0.1:12111/_double/clock -d '{"advance": 86400}'"""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(epilog=_EXAMPLES)
def main(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; only loopback is safe.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 for any free one.")] = 12111,
    api_key: Annotated[
        list[str] | None, typer.Option(help="A valid secret key; repeat it for several. Default: sk_test_double.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder that stores the account; without it the account is lost at the end.")
    ] = None,
    webhook_url: Annotated[str | None, typer.Option(help="URL of a webhook endpoint that receives all events.")] = None,
    webhook_secret: Annotated[
        list[str] | None, typer.Option(help="A signing secret of that endpoint; repeat it for several.")
    ] = None,
    start: Annotated[
        datetime | None, typer.Option(help="Start time of the clock, in UTC. Default: real or stored time.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random faults.")] = 0,
) -> None:
    """Serve Stripe's API for one account in test mode, until Ctrl-C or SIGTERM.

    The control API below /_double/ advances the clock, injects faults and simulates customers;
    services/stripe_double/README.md describes it.
    """
    if webhook_url and not webhook_secret:
        raise typer.BadParameter("--webhook-url needs a --webhook-secret to sign with")
    double = StripeDouble(
        api_key=api_key or ["sk_test_double"],
        webhook_url=webhook_url,
        webhook_secrets=webhook_secret or (),
        folder=folder,
        host=host,
        port=port,
        start=start.replace(tzinfo=UTC) if start else None,
        seed=seed,
    )
    try:
        asyncio.run(_serve(double))
    except OSError as error:
        cause = f"use folder {folder}" if error.filename else f"listen on {host}:{port}"
        typer.echo(f"stripe_double: can't {cause}: {error.strerror}", err=True)
        raise typer.Exit(1) from None
    except sqlite3.OperationalError as error:
        typer.echo(f"stripe_double: can't use folder {folder}: {error} (is another double using it?)", err=True)
        raise typer.Exit(1) from None


async def _serve(double: StripeDouble) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with double:
        typer.echo(f"Stripe double listens on {double.url}")
        await stop.wait()


if __name__ == "__main__":
    app(prog_name="python -m services.stripe_double")
