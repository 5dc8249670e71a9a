"""`nest topics`: are Kafka's topics what this release declares, and how do they become so?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from services.operator.errors import OutOfReach
from services.operator.options import AsJson, examples, said_in_words, without_logs

app = typer.Typer(no_args_is_help=True, help="Make Kafka's topics what this release declares, or compare.")

Bootstrap = Annotated[str, typer.Option(envvar="NEST_KAFKA_BOOTSTRAP", help="host:port of Kafka's brokers.")]
Prefix = Annotated[str, typer.Option(envvar="NEST_TOPIC_PREFIX", help="What leads every topic's name.")]
Replication = Annotated[int, typer.Option(min=1, help="Copies of each partition; 3 on a cluster that matters.")]


@app.command("apply", epilog=examples("nest topics apply --bootstrap kafka:9092 --replication 3"))
def apply_topics(bootstrap: Bootstrap, prefix: Prefix = "", replication: Replication = 1) -> None:
    """Make the topics that are missing and set the settings of all. Never deletes one."""
    from shared.bus.topics import apply  # noqa: PLC0415

    made = _asked_of_kafka(bootstrap, apply(bootstrap, prefix=prefix, replication=replication))
    for name in made:
        typer.echo(f"made {name}")
    typer.echo(f"{len(made)} topics made, settings of all applied")


@app.command("check", epilog=examples("nest topics check --bootstrap kafka:9092 --replication 3"))
def check_topics(
    bootstrap: Bootstrap, prefix: Prefix = "", replication: Replication = 1, *, as_json: AsJson = False
) -> None:
    """Say what differs from what this release declares; exit code 1 if anything does."""
    from shared.bus.topics import check  # noqa: PLC0415

    wrong = _asked_of_kafka(bootstrap, check(bootstrap, prefix=prefix, replication=replication))
    if as_json:
        typer.echo(json.dumps({"differences": wrong}, indent=2))
    else:
        for line in wrong or ["all topics are there, as this release declares them"]:
            typer.echo(line)
    raise typer.Exit(1 if wrong else 0)


def _asked_of_kafka(bootstrap: str, question: Coroutine[Any, Any, list[str]]) -> list[str]:
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    with said_in_words(), without_logs():
        try:
            return asyncio.run(question)
        except (KafkaError, OSError, ValueError) as error:
            raise OutOfReach(f"Kafka at {bootstrap} did not do it ({error})") from None
