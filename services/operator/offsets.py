"""`nest offsets`: the offsets of the services' consumer groups, saved with a backup and rewound after its restore."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from services.operator.client import CommandError
from services.operator.output import TIME_FORMATS, JsonErrors, Yes, confirm, example_text, one_line_errors, without_logs

if TYPE_CHECKING:
    from aiokafka import TopicPartition

MARGIN: Final = timedelta(minutes=10)
"""A rewind to a time begins so much earlier: records have their sender's time, and wait before they are handled."""
WARNING: Final = (
    "What was handled after that is handled again, unless the inboxes remember it. Mails may be sent again.\n"
    "Rewind the consumer groups?"
)
Saved = Mapping[str, tuple[int, str]]
"""Offset and metadata of one consumer group, by ``topic/partition``; topics are without prefix."""
app = typer.Typer(no_args_is_help=True, help="Save and rewind the offsets of the services' consumer groups.")
Prefix = Annotated[str, typer.Option(envvar="NEST_TOPIC_PREFIX", help="Prefix of every topic and consumer group.")]
OffsetsFile = Annotated[Path, typer.Argument(metavar="FILE", help="File with the offsets.")]
Bootstrap = Annotated[
    str,
    typer.Option(envvar="NEST_KAFKA_BOOTSTRAP", help="Addresses of Kafka's brokers: host:port, separated by commas."),
]


@app.command("save", epilog=example_text("nest offsets save offsets.json"))
def save(file: OffsetsFile, *, bootstrap: Bootstrap = "", prefix: Prefix = "", _json: JsonErrors = False) -> None:
    """Write the offsets of all consumer groups to a file. Do so right before a backup of MongoDB begins.

    Every record before these offsets was handled, so the backup contains its effects.
    """
    with one_line_errors(), without_logs():
        count = asyncio.run(save_offsets(file, bootstrap, prefix))
    typer.echo(f"{count} offsets saved to {file}")


@app.command("recover-users", epilog=example_text("nest offsets recover-users backup/offsets.json"))
def recover(file: OffsetsFile, *, bootstrap: Bootstrap = "", prefix: Prefix = "", _json: JsonErrors = False) -> None:
    """Add the users to a restored database of auth that have registered after the backup, with their IDs.

    Reads auth's events since the backup. Takes the services' variables, as billing for Kafka and as auth for MongoDB.
    """
    from services.operator.recovered_users import recover_users  # noqa: PLC0415 -- would slow down `nest --help`

    with one_line_errors(), without_logs():
        done = asyncio.run(recover_users(file, bootstrap, prefix))
    typer.echo(f"{done.events} verified addresses and numbers since the backup: {done.users} users added")
    if done.taken:
        typer.echo(f"{done.taken} belong to other users now, and were not added")


@app.command(
    "rewind",
    epilog=example_text("nest offsets rewind backup/offsets.json", "nest offsets rewind --to 2026-11-20T06:00 --yes"),
)
def rewind(
    file: Annotated[Path | None, typer.Argument(help="Offsets of the restored backup.")] = None,
    *,
    bootstrap: Bootstrap = "",
    to: Annotated[
        datetime | None,
        typer.Option(formats=TIME_FORMATS, metavar="TIME", help="Without a file: when the backup began, UTC."),
    ] = None,
    prefix: Prefix = "",
    yes: Yes = False,
    _json: JsonErrors = False,
) -> None:
    """Have the services read all records again that they have handled after a backup. Stop all services before.

    Prints the records to be read again, and those that have expired, and asks. Takes the services' variables for Kafka.
    """
    if (file is None) == (to is None):
        raise typer.BadParameter("give the file of the backup, or --to")
    with one_line_errors(), without_logs():
        saved = None if file is None else read_file(file)
        plans = asyncio.run(_plans(bootstrap, prefix, saved, to))
        for line in lines_of(plans):
            typer.echo(line)
        if not any(each.moves for each in plans):
            typer.echo("nothing to rewind")
            return
        confirm(WARNING, yes=yes)
        asyncio.run(_commit(bootstrap, plans))
    typer.echo(f"{sum(each.moves for each in plans)} offsets rewound; start the services")


@dataclass(frozen=True, slots=True)
class Plan:
    """The rewind of one partition.

    Attributes:
        service: whose consumer group it is.
        group: full name of the group.
        partition: the partition.
        committed: the committed offset; None if there is none.
        target: the offset to commit.
        metadata: metadata of the new commit.
        beginning: first offset that Kafka still has.
    """

    service: str
    group: str
    partition: TopicPartition
    committed: int | None
    target: int
    metadata: str
    beginning: int

    @property
    def moves(self) -> bool:
        """Whether the offset changes."""
        return self.committed is not None and self.target < self.committed

    @property
    def again(self) -> int:
        """Number of records that are read again."""
        return max(0, (self.committed or 0) - max(self.target, self.beginning))

    @property
    def expired(self) -> int:
        """Number of records that would have to be read again, and that Kafka has deleted."""
        return max(0, min(self.beginning, self.committed or 0) - self.target)


def lines_of(plans: list[Plan]) -> list[str]:
    """Return one line for each service and topic with records to be read again."""
    totals: dict[tuple[str, str], list[int]] = {}
    for each in plans:
        total = totals.setdefault((each.service, each.partition.topic), [0, 0])
        total[0] += each.again
        total[1] += each.expired
    lines = []
    for (service, topic), (again, expired) in totals.items():
        if again or expired:
            line = f"{service} reads {again} records of {topic} again"
            lines.append(line + (f"; {expired} more have expired and are lost" if expired else ""))
    return lines


def read_file(file: Path) -> dict[str, dict[str, tuple[int, str]]]:
    """Return the saved offsets by service.

    Raises:
        CommandError: the file can't be read, or is no file of ``nest offsets save``.
    """
    try:
        content = json.loads(file.read_text())
        return {
            service: {str(partition): (int(offset), str(metadata)) for partition, (offset, metadata) in found.items()}
            for service, found in content["offsets"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as failure:
        raise CommandError(f"{file} is no file of nest offsets save ({type(failure).__name__})") from None


async def save_offsets(file: Path, bootstrap: str, prefix: str) -> int:
    """Write the offsets of all consumer groups to a file; return their number.

    Raises:
        CommandError: Kafka can't be reached, a setting is invalid, or the file exists or can't be written.
    """
    from shared.bus.topics import SERVICES  # noqa: PLC0415 -- would slow down `nest --help`

    at, offsets = datetime.now(UTC), {}
    for service in SERVICES:
        async with _group(bootstrap, service, prefix) as group:
            offsets[service] = {
                f"{partition.topic.removeprefix(prefix)}/{partition.partition}": (found.offset, found.metadata)
                for partition, found in sorted((await group.committed()).items())
            }
    try:
        with file.open("x") as out:
            json.dump({"at": at.isoformat(), "offsets": offsets}, out, indent=1)
    except OSError as failure:
        raise CommandError(f"{file} can't be written ({failure.strerror})") from None
    return sum(map(len, offsets.values()))


async def _plans(bootstrap: str, prefix: str, saved: Mapping[str, Saved] | None, to: datetime | None) -> list[Plan]:
    from shared.bus.topics import SERVICES  # noqa: PLC0415

    plans = []
    for service in SERVICES:
        async with _group(bootstrap, service, prefix) as group:
            if saved is not None:
                plans += await group.plan_to_offsets(saved.get(service, {}))
            elif to is not None:
                plans += await group.plan_to_time(to.replace(tzinfo=UTC) - MARGIN)
    return plans


async def _commit(bootstrap: str, plans: list[Plan]) -> None:
    for service in {each.service: None for each in plans}:
        own = [each for each in plans if each.service == service and each.moves]
        if own:
            async with _group(bootstrap, service, own[0].group.removesuffix(service)) as group:
                await group.commit(own)


def _group(bootstrap: str, service: str, prefix: str) -> Any:
    from services.operator.consumer_groups import opened_group  # noqa: PLC0415 -- would slow down `nest --help`

    return opened_group(bootstrap, service, prefix)
