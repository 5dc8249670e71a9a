"""The `nest` command.

Heavy imports are inside the commands, so that `nest --help` responds at once.
"""

import asyncio
import gc
from collections.abc import Coroutine
from enum import StrEnum
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator import (
    audit,
    branding,
    clients,
    database,
    dead_letters,
    deliveries,
    keys,
    limits,
    login,
    news,
    offsets,
    partitions,
    stripe,
    system,
    topics,
    users,
    webhooks,
)
from services.operator.command_line import NestGroup, print_error
from services.operator.doctor.command import doctor
from services.operator.output import JsonErrors, example_text

LOCAL: Final = "Everything on this machine"
SERVICES: Final = "Run the services"
OPERATORS: Final = "For operators of a running Nest"

app = typer.Typer(
    name="nest",
    cls=NestGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Passwordless login, subscriptions, mail and news behind one small HTTP API.",
    epilog="Start with [bold]nest up[/bold]: everything on this machine, nothing else to install.",
)
app.add_typer(topics.app, name="topics", rich_help_panel=SERVICES)
app.add_typer(database.app, name="database", rich_help_panel=SERVICES)
app.add_typer(offsets.app, name="offsets", rich_help_panel=SERVICES)
clients.app.add_typer(branding.app, name="looks")
for name, group in (
    ("audit", audit.app),
    ("clients", clients.app),
    ("dead", dead_letters.app),
    ("deliveries", deliveries.app),
    ("keys", keys.app),
    ("limits", limits.app),
    ("mail", branding.mail_app),
    ("news", news.app),
    ("profiles", login.app),
    ("partitions", partitions.app),
    ("stripe", stripe.app),
    ("suppressions", deliveries.suppressions_app),
    ("system", system.app),
    ("webhooks", webhooks.app),
    ("users", users.app),
):
    app.add_typer(group, name=name, rich_help_panel=OPERATORS)


class Name(StrEnum):
    """Names of the services that run alone."""

    GATEWAY = "gateway"
    AUTH = "auth"
    BILLING = "billing"
    MAILER = "mailer"
    NEWS = "news"


Port = Annotated[int, typer.Option(envvar="NEST_PORT", min=1, max=65_535, help="Port of the HTTP API.")]
Host = Annotated[str, typer.Option(envvar="NEST_HOST", help="Address to listen on; :: for all.")]
Data = Annotated[Path, typer.Option("--data", envvar="NEST_DATA", help="Folder for all data.")]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 -- typer passes it by position
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
    """Accept the options of `nest` itself."""


@app.command(rich_help_panel=LOCAL, epilog=example_text("nest up", "nest up --port 8081 --data ~/nest-data"))
def up(
    port: Port = 8080,
    host: Host = "127.0.0.1",
    data: Data = Path(".nest"),
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print all log entries, not only warnings.")] = False,
    child: Annotated[
        bool,
        typer.Option(
            "--child", help="For programs that run Nest: print a line of JSON when ready, stop at end of input."
        ),
    ] = False,
    _json: JsonErrors = False,
) -> None:
    """Run everything on this machine: Kafka, MongoDB, the five services, an inbox and a Stripe double."""
    from services.embedded.up import run_up  # noqa: PLC0415

    _run(run_up(folder=data, host=host, port=port, verbose=verbose, child=child))


@app.command(rich_help_panel=SERVICES, epilog=example_text("NEST_KAFKA_BOOTSTRAP=… NEST_MONGO_URL=… nest run auth"))
def run(
    service: Annotated[Name, typer.Argument(metavar="gateway|auth|billing|mailer|news", help="Service to run.")],
) -> None:
    """Run one service until SIGTERM, configured by NEST_ variables. Two instances share the load."""
    # Nothing that the imports create is garbage. The service enables the collector again.
    gc.disable()
    from shared import service as runner  # noqa: PLC0415

    create = import_module(f"services.{service}.app").create
    raise typer.Exit(runner.run(service, create))


@app.command(rich_help_panel=LOCAL, epilog=example_text("nest services --port 8081"))
def services(
    port: Port = 8080, host: Host = "127.0.0.1", data: Data = Path(".nest"), *, _json: JsonErrors = False
) -> None:
    """Run the five services as separate processes, with interleaved logs.

    Kafka and MongoDB are embedded unless NEST_KAFKA_BOOTSTRAP and NEST_MONGO_URL are set.
    """
    from services.embedded.separate_processes import run_separately  # noqa: PLC0415

    _run(run_separately(folder=data, host=host, port=port))


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run the embedded mode; an error is one line on standard error."""
    import uvloop  # noqa: PLC0415

    from services.embedded.errors import CannotStart  # noqa: PLC0415
    from shared.settings import SettingsError  # noqa: PLC0415

    try:
        uvloop.run(work)
    except (CannotStart, SettingsError) as error:
        print_error(str(error), code="cannot_start")
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None


app.command(rich_help_panel=OPERATORS, epilog=example_text("nest doctor", "nest doctor --dkim-selector s1 --json"))(
    doctor
)


app.command(rich_help_panel=OPERATORS, epilog=login.epilog())(login.login)


def main() -> None:
    """Entry point of the `nest` command."""
    app()


if __name__ == "__main__":
    main()
