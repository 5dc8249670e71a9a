"""Backups of the services' databases: a consistent copy of each, as files that ``mongorestore --gzip`` reads too.

A copy is read in one snapshot of MongoDB, while the services run. MongoDB keeps snapshots for five minutes by default
(``minSnapshotHistoryWindowInSeconds``), so larger databases need ``mongodump --oplog`` or snapshots of the disks.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Final, cast

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from services.operator.client import CommandError
from services.operator.databases import COMMAND_SECONDS, migrations_of, opened_database
from services.operator.offsets import save_offsets
from shared.bus.topics import SERVICES
from shared.database_version import refusal_of, stored_version
from shared.mongo import Database

BATCH: Final = 1_000
"""Documents that are inserted at once."""
OFFSETS: Final = "offsets.json"
MANIFEST: Final = "backup.json"
TOO_OLD: Final = 239
"""MongoDB's error code for a snapshot that it no longer has (SnapshotTooOld)."""
RAW: Final = CodecOptions(RawBSONDocument)


async def dump(folder: Path, bootstrap: str, prefix: str, say: Callable[[str], None]) -> None:
    """Write the offsets of the consumer groups and then every database to a new folder.

    Args:
        folder: the folder; only its owner may read it, because it holds personal data.
        bootstrap: ``host:port`` of Kafka's brokers.
        prefix: prefix of topics and consumer groups.
        say: called with a line for each database.

    Raises:
        CommandError: the folder exists, a setting is wrong, or Kafka or MongoDB failed. The folder is incomplete then.
    """
    _create(folder)
    began = datetime.now(UTC)
    # First, so that everything before these offsets is in the copies.
    await save_offsets(folder / OFFSETS, bootstrap, prefix)
    databases = {}
    for service in SERVICES:
        async with opened_database(service, timeout=COMMAND_SECONDS) as (own, _):
            counts = await _dump_database(own, folder / service)
            databases[service] = {"version": await stored_version(own), "documents": counts}
        say(f"{service}: {sum(counts.values())} documents")
    manifest = {"release": metadata.version("nest"), "at": began.isoformat(), "databases": databases}
    # Last, so that a folder with it is complete.
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


async def restore(folder: Path, say: Callable[[str], None]) -> None:
    """Insert the documents of a backup into empty databases.

    Args:
        folder: the folder of ``dump``.
        say: called with a line for each database.

    Raises:
        CommandError: the backup is incomplete or too new for this release, a database is not empty, a setting is wrong,
            or MongoDB failed.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as failure:
        raise CommandError(f"{folder} is no complete backup ({type(failure).__name__})") from None
    for service in SERVICES:
        async with opened_database(service, timeout=COMMAND_SECONDS) as (own, _):
            version, migrations = manifest["databases"][service]["version"], migrations_of(service)
            refusal = refusal_of(own.name, version, oldest=migrations.oldest, known=migrations.known)
            if refusal is not None:
                raise CommandError(refusal)
            for name in await own.list_collection_names():
                if await own[name].find_one({}, {"_id": 1}) is not None:
                    raise CommandError(f"{own.name} is not empty: drop it, if its data is worthless")
    for service in SERVICES:
        async with opened_database(service, timeout=COMMAND_SECONDS) as (own, _):
            wanted = manifest["databases"][service]["documents"]
            counts = {name: await _insert(own, name, folder / service / f"{name}.bson.gz") for name in wanted}
        if counts != wanted:
            raise CommandError(f"the files of {service} are incomplete")
        say(f"{service}: {sum(counts.values())} documents")


async def _dump_database(own: Database, folder: Path) -> dict[str, int]:
    _create(folder)
    counts: dict[str, int] = {}
    names = sorted(await own.list_collection_names(filter={"type": "collection"}))
    async with own.client.start_session(snapshot=True) as session:
        for name in names:
            counts[name] = 0
            with gzip.open(folder / f"{name}.bson.gz", "wb", compresslevel=3) as out:
                try:
                    async for document in raw(own, name).find(session=session):
                        out.write(document.raw)
                        counts[name] += 1
                except OperationFailure as failure:
                    if failure.code != TOO_OLD:
                        raise
                    raise CommandError(
                        f"{own.name} is too large for this: use mongodump --oplog, or snapshots of the disks"
                    ) from None
    return counts


def raw(own: Database, name: str) -> AsyncCollection[RawBSONDocument]:
    """Return a collection whose documents are bytes of BSON."""
    return own.get_collection(name).with_options(codec_options=RAW)


def _create(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except OSError as failure:
        raise CommandError(f"{folder} can't be created ({failure.strerror}): name a new folder") from None


async def _insert(own: Database, name: str, file: Path) -> int:
    count = 0
    for batch in _batches(file):
        await raw(own, name).insert_many(batch, ordered=False)
        count += len(batch)
    return count


def _batches(file: Path) -> Iterator[list[RawBSONDocument]]:
    batch: list[RawBSONDocument] = []
    for document in _documents(file):
        batch.append(document)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _documents(file: Path) -> Iterator[RawBSONDocument]:
    try:
        with gzip.open(file) as content:
            yield from bson.decode_file_iter(cast("IO[bytes]", content), RAW)
    except (OSError, EOFError, bson.errors.InvalidBSON) as failure:
        raise CommandError(f"{file} can't be read ({type(failure).__name__})") from None
