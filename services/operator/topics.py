"""`nest topics`: create Kafka's topics and compare them with this release's declaration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.operator.client import CommandError, Unreachable
from services.operator.output import AsJson, example_text, one_line_errors, print_json, without_logs

if TYPE_CHECKING:
    from shared.bus.kafka_connection import KafkaConnection

app = typer.Typer(no_args_is_help=True, help="Create and compare Kafka's topics as this release declares them.")

Bootstrap = Annotated[str, typer.Option(envvar="NEST_KAFKA_BOOTSTRAP", help="host:port of Kafka's brokers.")]
Prefix = Annotated[str, typer.Option(envvar="NEST_TOPIC_PREFIX", help="Prefix of every topic name.")]
Replication = Annotated[int, typer.Option(min=1, help="Replicas of each partition; 3 in production.")]


@app.command("apply", epilog=example_text("nest topics apply --bootstrap kafka:9092 --replication 3"))
def apply_topics(bootstrap: Bootstrap, prefix: Prefix = "", replication: Replication = 1) -> None:
    """Create missing topics and set the configuration of all. Never deletes a topic."""
    from shared.bus.topics import apply  # noqa: PLC0415 -- would slow down `nest --help`

    created = _run(bootstrap, lambda kafka: apply(kafka, prefix=prefix, replication=replication))
    for name in created:
        typer.echo(f"created {name}")
    typer.echo(f"{len(created)} topics created, configuration of all applied")


@app.command("check", epilog=example_text("nest topics check --bootstrap kafka:9092 --replication 3"))
def check_topics(
    bootstrap: Bootstrap, prefix: Prefix = "", replication: Replication = 1, *, as_json: AsJson = False
) -> None:
    """Print the differences from this release's declaration; the exit code is 1 if there are any."""
    from shared.bus.topics import check  # noqa: PLC0415 -- would slow down `nest --help`

    differences = _run(bootstrap, lambda kafka: check(kafka, prefix=prefix, replication=replication))
    if as_json:
        print_json({"differences": differences})
    else:
        typer.echo("\n".join(differences or ["all topics are as declared"]))
    raise typer.Exit(1 if differences else 0)


def _run(bootstrap: str, request: Callable[[KafkaConnection], Coroutine[Any, Any, list[str]]]) -> list[str]:
    from aiokafka.errors import KafkaError  # noqa: PLC0415 -- would slow down `nest --help`

    from services.operator.kafka import connection  # noqa: PLC0415
    from shared.bus.kafka_connection import KafkaAccessDenied  # noqa: PLC0415

    async def requested() -> list[str]:
        await kafka.check()
        return await request(kafka)

    with one_line_errors(), without_logs():
        kafka = connection(bootstrap)
        try:
            return asyncio.run(requested())
        except KafkaAccessDenied as denied:
            raise CommandError(str(denied)) from None
        except (KafkaError, OSError, ValueError) as error:
            raise Unreachable(f"the request to Kafka at {bootstrap} failed ({error})") from None
