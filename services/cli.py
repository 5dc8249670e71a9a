"""The `nest` command: what a person or a supervisor types.

Heavy imports happen inside the commands, so that `nest --help` answers at once.
"""

import asyncio
from collections.abc import Coroutine
from enum import StrEnum
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator import (
    audit,
    clients,
    dead,
    deliveries,
    keys,
    looks,
    mail,
    news,
    payments,
    stripe,
    suppressions,
    topics,
    users,
)
from services.operator.doctor.command import doctor
from services.operator.options import examples

HERE: Final = "Everything on this machine"
SERVICES: Final = "Run the services"
OPERATORS: Final = "For operators of a running Nest"

app = typer.Typer(
    name="nest",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Passwordless login, subscriptions, mail and news behind one small HTTP API.",
    epilog="Start with [bold]nest up[/bold]: everything on this machine, nothing to install besides.",
)
app.add_typer(topics.app, name="topics", rich_help_panel=SERVICES)
app.add_typer(audit.app, name="audit", rich_help_panel=OPERATORS)
app.add_typer(clients.app, name="clients", rich_help_panel=OPERATORS)
clients.app.add_typer(looks.app, name="looks")
app.add_typer(dead.app, name="dead", rich_help_panel=OPERATORS)
app.add_typer(deliveries.app, name="deliveries", rich_help_panel=OPERATORS)
app.add_typer(keys.app, name="keys", rich_help_panel=OPERATORS)
app.add_typer(mail.app, name="mail", rich_help_panel=OPERATORS)
app.add_typer(news.app, name="news", rich_help_panel=OPERATORS)
app.add_typer(stripe.app, name="stripe", rich_help_panel=OPERATORS)
app.add_typer(suppressions.app, name="suppressions", rich_help_panel=OPERATORS)
stripe.app.add_typer(payments.app)
app.add_typer(users.app, name="users", rich_help_panel=OPERATORS)


class Name(StrEnum):
    """The services that can run alone."""

    GATEWAY = "gateway"
    AUTH = "auth"
    BILLING = "billing"
    MAILER = "mailer"
    NEWS = "news"


Port = Annotated[int, typer.Option(envvar="NEST_PORT", min=1, max=65_535, help="Where the HTTP API listens.")]
Host = Annotated[str, typer.Option(envvar="NEST_HOST", help="The address to listen on; 0.0.0.0 for all.")]
Data = Annotated[Path, typer.Option("--data", envvar="NEST_DATA", help="The folder that keeps everything.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every log line, not only warnings.")]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"nest {metadata.version('nest')}")
        raise typer.Exit


@app.callback()
def nest(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command(
    rich_help_panel=HERE,
    epilog=examples("nest up", "nest up --port 8081 --data ~/nest-data"),
)
def up(port: Port = 8080, host: Host = "127.0.0.1", data: Data = Path(".nest"), *, verbose: Verbose = False) -> None:
    """Run everything on this machine: Kafka, MongoDB, the five services, an inbox and a Stripe double."""
    from services.embedded.up import run_up  # noqa: PLC0415

    _run(run_up(folder=data, host=host, port=port, verbose=verbose))


@app.command(rich_help_panel=SERVICES, epilog=examples("NEST_KAFKA_BOOTSTRAP=… NEST_MONGO_URL=… nest run auth"))
def run(service: Name) -> None:
    """Run one service until SIGTERM, configured by NEST_ variables. Start two of each to share the work."""
    from shared import service as runner  # noqa: PLC0415

    create = import_module(f"services.{service}.app").create
    raise typer.Exit(runner.run(service, create))


@app.command(rich_help_panel=HERE, epilog=examples("nest services --port 8081"))
def services(port: Port = 8080, host: Host = "127.0.0.1", data: Data = Path(".nest")) -> None:
    """Run the five services as separate processes, with their logs side by side.

    Kafka and MongoDB are the embedded ones unless NEST_KAFKA_BOOTSTRAP and NEST_MONGO_URL name others.
    """
    from services.embedded.separately import run_separately  # noqa: PLC0415

    _run(run_separately(folder=data, host=host, port=port))


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Runs it; whatever is in the way is one line on standard error."""
    import uvloop  # noqa: PLC0415

    from services.embedded.errors import CannotStart  # noqa: PLC0415
    from shared.settings import SettingsError  # noqa: PLC0415

    try:
        uvloop.run(work)
    except (CannotStart, SettingsError) as error:
        typer.echo(f"nest: {error}", err=True)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None


app.command(
    rich_help_panel=OPERATORS,
    epilog=examples("nest doctor", "nest doctor --dkim-selector s1 --json"),
)(doctor)


def main() -> None:
    """The entry point of the `nest` command."""
    app()


if __name__ == "__main__":
    main()
