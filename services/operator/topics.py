"""`nest topics`: create Kafka's topics and compare them with this release's declaration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from services.operator.client import CommandError, Unreachable
from services.operator.output import (
    AsJson,
    JsonErrors,
    Yes,
    confirm,
    example_text,
    one_line_errors,
    print_json,
    without_logs,
)

if TYPE_CHECKING:
    from shared.bus.kafka_connection import KafkaConnection

Result = TypeVar("Result")
GROW_QUESTION = "Requests get 503 for some seconds, and Kafka can't take partitions away again.\nGrow these topics?"
app = typer.Typer(no_args_is_help=True, help="Create and compare Kafka's topics as this release declares them.")

Bootstrap = Annotated[
    str,
    typer.Option(envvar="NEST_KAFKA_BOOTSTRAP", help="Addresses of Kafka's brokers: host:port, separated by commas."),
]
Prefix = Annotated[str, typer.Option(envvar="NEST_TOPIC_PREFIX", help="Prefix of every topic name.")]
Replication = Annotated[int, typer.Option(min=1, help="Replicas of each partition; 3 in production.")]


Principal = Annotated[
    list[str] | None,
    typer.Option(
        "--principal",
        metavar="PROCESS=NAME",
        help="Kafka's name of a process if it is not User:PROCESS: auth=User:CN=auth. Repeat it for several.",
    ),
]


@app.command(
    "apply",
    epilog=example_text(
        "nest topics apply --bootstrap kafka:9092 --replication 3", "nest topics apply --bootstrap kafka:9092 --acls"
    ),
)
def apply_topics(
    bootstrap: Bootstrap,
    prefix: Prefix = "",
    replication: Replication = 1,
    *,
    acls: Annotated[bool, typer.Option("--acls", help="Apply the rights of each process on the topics too.")] = False,
    principal: Principal = None,
    _json: JsonErrors = False,
) -> None:
    """Create missing topics and set the configuration of all. Never deletes a topic.

    With --acls it also creates the missing rights of each process, and removes those of Nest's processes that are not
    declared. It only reports what others may do with Nest's topics.
    """
    from shared.bus.topics import apply  # noqa: PLC0415 -- would slow down `nest --help`

    created = _run(bootstrap, lambda kafka: apply(kafka, prefix=prefix, replication=replication))
    for name in created:
        typer.echo(f"created {name}")
    typer.echo(f"{len(created)} topics created, configuration of all applied")
    if not acls:
        return
    from shared.bus.access import apply_acls  # noqa: PLC0415

    names = _principals(principal)
    before = _run(bootstrap, lambda kafka: apply_acls(kafka, prefix=prefix, principals=names))
    for each in before.missing:
        typer.echo(f"added: {each}")
    for each in before.extra:
        typer.echo(f"removed: {each}")
    for each in before.foreign:
        typer.echo(f"not declared, left: {each}")
    typer.echo(f"{len(before.missing)} rights added, {len(before.extra)} removed")


@app.command("check", epilog=example_text("nest topics check --bootstrap kafka:9092 --replication 3"))
def check_topics(
    bootstrap: Bootstrap,
    prefix: Prefix = "",
    replication: Replication = 1,
    *,
    acls: Annotated[
        bool | None,
        typer.Option(help="Whether to compare rights too; by default if Kafka has an authorizer.", show_default=False),
    ] = None,
    principal: Principal = None,
    as_json: AsJson = False,
) -> None:
    """Print the differences from this release's declaration; the exit code is 1 if there are any."""
    from shared.bus.access import NoAuthorizer, compare_acls  # noqa: PLC0415 -- would slow down `nest --help`
    from shared.bus.topics import check  # noqa: PLC0415

    names = _principals(principal)

    async def differences_of(kafka: KafkaConnection) -> list[str]:
        found = await check(kafka, prefix=prefix, replication=replication)
        if acls is False:
            return found
        try:
            return found + (await compare_acls(kafka, prefix=prefix, principals=names)).lines()
        except NoAuthorizer as none:
            return found + ([str(none)] if acls else [])

    differences = _run(bootstrap, differences_of)
    if as_json:
        print_json({"differences": differences})
    else:
        typer.echo("\n".join(differences or ["all topics are as declared"]))
    raise typer.Exit(1 if differences else 0)


@app.command(
    "grow",
    epilog=example_text(
        "nest topics grow --bootstrap kafka:9092",
        "nest topics grow auth.commands auth.service-commands --partitions 96 --yes",
    ),
)
def grow_topics(
    bootstrap: Bootstrap,
    topics: Annotated[
        list[str] | None,
        typer.Argument(metavar="TOPIC", help="Names without prefix; by default every topic that may grow."),
    ] = None,
    prefix: Prefix = "",
    *,
    partitions: Annotated[int, typer.Option(min=2, max=1_000, help="Partitions of each topic afterwards.")] = 48,
    timeout: Annotated[
        int, typer.Option(min=5, max=3_600, help="Seconds in which everything must be handled; else nothing changes.")
    ] = 120,
    yes: Yes = False,
    _json: JsonErrors = False,
) -> None:
    """Give topics more partitions, so that more instances share them. Kafka can't take them away again.

    Requests get 503 with retry-after until every message is handled, the partitions are there and consumed: some
    seconds. The order of each key is kept. It needs NEST_SEALING_KEYS, and may be interrupted and repeated.
    """
    from services.operator.settings import DiagnosticSettings  # noqa: PLC0415 -- would slow down `nest --help`
    from services.operator.topic_growth import Growth, Plan  # noqa: PLC0415
    from shared.bus.record_macs import RecordMacs  # noqa: PLC0415
    from shared.bus.topics import CONSUMERS, GROWABLE  # noqa: PLC0415
    from shared.sealing import Sealer  # noqa: PLC0415
    from shared.settings import SettingsError, load, parse_keys  # noqa: PLC0415

    names = topics or list(GROWABLE)
    if unknown := sorted(set(names) - set(GROWABLE)):
        raise typer.BadParameter(f"may not grow: {', '.join(unknown)}; choose among {', '.join(GROWABLE)}")
    with one_line_errors():
        try:
            keys = parse_keys(load(DiagnosticSettings).sealing_keys.get_secret_value())
        except (SettingsError, ValueError) as invalid:
            raise CommandError(f"NEST_SEALING_KEYS, those of the services, are needed: {invalid}") from None

    async def planned_and_grown(kafka: KafkaConnection) -> None:
        macs = RecordMacs(Sealer(keys), prefix=prefix)
        growth = Growth(kafka, macs, prefix, CONSUMERS, timeout, typer.echo)
        try:
            await growth.start()
            plan = await growth.plan(names, partitions)
            _show_plan(plan)
            if plan.wanted:
                await asyncio.to_thread(confirm, GROW_QUESTION, yes=yes)
                await growth.grow(await growth.plan(names, partitions))
        finally:
            await growth.stop()

    def _show_plan(plan: Plan) -> None:
        for name, number in plan.present.items():
            typer.echo(f"{name}: {number} partitions" + (f" -> {plan.wanted[name]}" if name in plan.wanted else ""))
        typer.echo(f"running: {', '.join(plan.processes) or 'no process'}")

    _run(bootstrap, planned_and_grown)


def _principals(given: list[str] | None) -> dict[str, str]:
    from shared.bus.access import PRINCIPALS  # noqa: PLC0415

    names = dict(each.partition("=")[::2] for each in given or ())
    if not names.keys() <= set(PRINCIPALS) or not all(name.startswith("User:") for name in names.values()):
        raise typer.BadParameter(f"write PROCESS=User:NAME, with one of {', '.join(PRINCIPALS)}")
    return names


def _run(bootstrap: str, request: Callable[[KafkaConnection], Coroutine[Any, Any, Result]]) -> Result:
    from aiokafka.errors import KafkaError  # noqa: PLC0415 -- would slow down `nest --help`

    from services.operator.kafka import connection  # noqa: PLC0415
    from shared.bus.access import MayNotChangeAcls, NoAuthorizer  # noqa: PLC0415
    from shared.bus.kafka_connection import KafkaAccessDenied  # noqa: PLC0415
    from shared.bus.producer import BusDown  # noqa: PLC0415

    async def requested() -> Result:
        await kafka.check()
        return await request(kafka)

    with one_line_errors(), without_logs():
        kafka = connection(bootstrap)
        try:
            return asyncio.run(requested())
        except (KafkaAccessDenied, MayNotChangeAcls, NoAuthorizer) as denied:
            raise CommandError(str(denied)) from None
        except (KafkaError, BusDown, OSError, ValueError) as error:
            raise Unreachable(f"the request to Kafka at {bootstrap} failed ({error})") from None
