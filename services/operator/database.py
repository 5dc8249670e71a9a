"""`nest database`: versions of the services' databases, their migrations and backups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.operator.client import CommandError
from services.operator.offsets import Bootstrap, Prefix
from services.operator.output import AsJson, JsonErrors, example_text, one_line_errors, print_json, without_logs

if TYPE_CHECKING:
    from shared.migrations import Progress, Status

app = typer.Typer(no_args_is_help=True, help="Migrate, back up and restore the services' databases.")
BackupFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backup.")]
Service = Annotated[list[str] | None, typer.Option(help="Only the database of this service; repeat it.")]


@app.command("status", epilog=example_text("nest database status", "nest database status --service auth --json"))
def show_status(service: Service = None, *, as_json: AsJson = False) -> None:
    """Print the version of each database, the newest that this release knows, and the documents to migrate.

    Takes the services' variables: NEST_SEALING_KEYS, NEST_MONGO_URL and NEST_DATABASE_PREFIX.
    """
    with one_line_errors(), without_logs():
        _print_status(asyncio.run(_statuses(service)), as_json=as_json)


@app.command(
    "migrate", epilog=example_text("nest database migrate --dry-run", "nest database migrate --service auth --rate 500")
)
def migrate(
    service: Service = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; print what is to be done.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=1, help="Documents per second at most; by default no limit.")
    ] = None,
    wait: Annotated[
        int, typer.Option(min=0, help="Seconds to wait for instances of an older release, or another job, to end.")
    ] = 600,
    _json: JsonErrors = False,
) -> None:
    """Rewrite the documents of older releases while the services run, then raise the versions of the databases.

    Takes the services' variables. It may be killed and run again: it continues. A database gets its new version, which
    older releases refuse, once no instance of an older release uses it.
    """
    with one_line_errors(), without_logs():
        if dry_run:
            _print_status(asyncio.run(_statuses(service)), as_json=False)
            return
        asyncio.run(migrate_all(service, rate=rate, wait=wait))


@app.command("dump", epilog=example_text("nest database dump backup-2026-12-01"))
def dump(folder: BackupFolder, *, bootstrap: Bootstrap = "", prefix: Prefix = "", _json: JsonErrors = False) -> None:
    """Write a backup of the services' databases, and the offsets of their consumer groups, to a new folder.

    Takes the services' variables for MongoDB and Kafka; the services run on. For databases that take longer than five
    minutes use mongodump --oplog or snapshots of the disks, after nest offsets save.
    """
    from services.operator.backup import dump as write  # noqa: PLC0415 -- would slow down `nest --help`

    with one_line_errors(), without_logs():
        asyncio.run(write(folder, bootstrap, prefix, typer.echo))
    typer.echo(f"{folder} is complete; it holds personal data")


@app.command("restore", epilog=example_text("nest database restore backup-2026-12-01"))
def restore(folder: BackupFolder, *, _json: JsonErrors = False) -> None:
    """Insert a backup into empty databases, while no service runs. Then run nest offsets rewind.

    Takes the services' variables: NEST_SEALING_KEYS, NEST_MONGO_URL and NEST_DATABASE_PREFIX.
    """
    from services.operator.backup import restore as insert  # noqa: PLC0415 -- would slow down `nest --help`

    with one_line_errors(), without_logs():
        asyncio.run(insert(folder, typer.echo))


async def migrate_all(
    services: list[str] | None = None,
    *,
    rate: float | None = None,
    wait: int = 600,
    say: Callable[[str], None] = typer.echo,
) -> None:
    """Migrate the databases of these services, all by default, with the settings of the environment.

    Raises:
        CommandError: a setting is missing, MongoDB failed, or the job can't continue; a repeat continues.
    """
    from services.operator.databases import (  # noqa: PLC0415
        COMMAND_SECONDS,
        chosen_services,
        migrations_of,
        opened_database,
    )
    from shared.migrations import CannotMigrate, MigrationContext, MigrationJob  # noqa: PLC0415
    from shared.sealing import Sealer  # noqa: PLC0415

    for service in chosen_services(services):

        def report(progress: Progress, service: str = service) -> None:
            say(f"{service}: {_line(progress)}")

        migrations = migrations_of(service)
        async with opened_database(service, timeout=COMMAND_SECONDS) as (own, keys):
            context = MigrationContext(own, Sealer(keys))
            try:
                count = await MigrationJob(context, migrations, report, rate=rate, wait_seconds=wait).run()
            except CannotMigrate as cannot:
                raise CommandError(str(cannot)) from None
            say(f"{service}: version {migrations.known}, {count} documents rewritten")


async def _statuses(services: list[str] | None) -> dict[str, Status]:
    from services.operator.databases import (  # noqa: PLC0415
        COMMAND_SECONDS,
        chosen_services,
        migrations_of,
        opened_database,
    )
    from shared.migrations import status  # noqa: PLC0415

    found = {}
    for service in chosen_services(services):
        async with opened_database(service, timeout=COMMAND_SECONDS) as (own, _):
            found[service] = await status(own, migrations_of(service))
    return found


def _line(progress: Progress) -> str:
    if progress.waits_for:
        return f"waiting for instances of an older release to end: {', '.join(progress.waits_for)}"
    line = f"{progress.migration.title}: {progress.done} of {progress.total} documents"
    if progress.rate:
        line += f", {progress.rate:.0f}/s"
    if progress.seconds_left is not None:
        line += f", {progress.seconds_left:.0f} s left"
    return line


def _print_status(statuses: dict[str, Status], *, as_json: bool) -> None:
    if as_json:
        print_json({service: _as_json(status) for service, status in statuses.items()})
        return
    for service, status in statuses.items():
        typer.echo(f"{service}: version {status.version}, this release knows {status.known}")
        for migration, left in status.left:
            typer.echo(f"{service}: {migration.version} {migration.title}: {left} documents to rewrite")


def _as_json(status: Status) -> dict[str, Any]:
    pending = [
        {"version": migration.version, "title": migration.title, "documents": left} for migration, left in status.left
    ]
    return {"version": status.version, "known": status.known, "pending": pending}
