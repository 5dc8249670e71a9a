"""Migrations: documents of an older shape are rewritten by a job, in batches, while the services run.

A change of shape takes three steps. *Expand*: a release reads both shapes and writes the new one; instances of the
release before run beside it. *Migrate*: the job rewrites the documents of the older shape. *Contract*: once no instance
of an older release uses the database, the job rewrites what they left and raises the version of the database, so that
they are refused from then on. A later release may then drop the code that reads the older shape: it removes the
migration and raises ``Migrations.oldest``.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pymongo import ReplaceOne

from shared.database_version import COLLECTION, raise_version, refusal_of, stored_version, upsert
from shared.mongo import Collection, Database, Document
from shared.sealing import Sealer

BATCH: Final = 500
"""Documents in one batch, which takes some 50 ms."""
REPORT_SECONDS: Final = 2.0
"""Interval of the progress reports."""
MAX_FRUITLESS_PASSES: Final = 3
"""Passes in a row that rewrite nothing although older documents are left."""
LEASE_SECONDS: Final = 60
"""How long a job may be silent before another one may take its place."""
POLL_SECONDS: Final = 2.0
JOB: Final = "job"


class CannotMigrate(Exception):
    """The job can't continue. The text is one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class MigrationContext:
    """What a migration uses: the database of the service, and its sealing keys."""

    database: Database
    sealer: Sealer


Change = Callable[[MigrationContext, Collection, Sequence[Document]], Awaitable[int]]
"""Rewrites a batch of documents of a collection; returns the number of those that were rewritten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A change of the shape of one collection's documents.

    Attributes:
        version: version of the database after it; versions of a service are consecutive.
        title: what it changes, in a few words.
        collection: name of the collection.
        older: query for the documents of the older shape. Rewritten documents don't match it.
        change: rewrites a batch of them; a document that changed meanwhile is left for the next pass.
        finish: called after each pass, for what ``older`` does not find.
    """

    version: int
    title: str
    collection: str
    older: Document
    change: Change
    finish: Callable[[MigrationContext], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Migrations:
    """The migrations of a service.

    Attributes:
        steps: those whose older documents this release still reads, in the order of their versions.
        oldest: oldest version of a database that this release reads.
    """

    steps: tuple[Migration, ...] = ()
    oldest: int = 0

    def __post_init__(self) -> None:
        versions = [each.version for each in self.steps]
        if versions != list(range(self.oldest + 1, self.oldest + 1 + len(versions))):
            raise ValueError(f"the versions {versions} do not follow {self.oldest} one by one")

    @property
    def known(self) -> int:
        """Newest version that this release knows."""
        return self.oldest + len(self.steps)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job in one migration.

    Attributes:
        migration: the migration.
        done: documents rewritten, those of interrupted jobs included.
        total: documents that were of the older shape when the first job began.
        rate: documents per second of this job.
        waits_for: older instances for which the contract step waits.
    """

    migration: Migration
    done: int
    total: int
    rate: float = 0.0
    waits_for: tuple[str, ...] = ()

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the rest; None if it is unknown."""
        return (self.total - self.done) / self.rate if self.rate and self.total >= self.done else None


@dataclass(frozen=True, slots=True)
class Status:
    """State of a database: its version, the newest that this release knows, and the documents that are left."""

    version: int
    known: int
    left: tuple[tuple[Migration, int], ...]


def replacing(change: Callable[[Document], Document]) -> Change:
    """Return a change that replaces each document, guarded by its ``version``, which stays the same."""

    async def replace(_context: MigrationContext, collection: Collection, documents: Sequence[Document]) -> int:
        writes = [ReplaceOne({"_id": each["_id"], "version": each.get("version")}, change(each)) for each in documents]
        return (await collection.bulk_write(writes, ordered=False)).modified_count

    return replace


async def status(database: Database, migrations: Migrations) -> Status:
    """Count the documents of the older shapes, which may read whole collections."""
    version = await stored_version(database)
    left = [
        (each, await database[each.collection].count_documents(each.older))
        for each in migrations.steps
        if each.version > version
    ]
    return Status(version, migrations.known, tuple(left))


class MigrationJob:
    """The job that migrates one database. It may be killed at any moment and run again; of two, one waits.

    Args:
        context: the database and the sealing keys.
        migrations: those of the service.
        report: called with the progress at the start and end of each migration, and every ``REPORT_SECONDS``.
        rate: maximum number of documents per second; None for no limit.
        wait_seconds: how long the contract step waits for instances of older releases, and for another job.
    """

    def __init__(
        self,
        context: MigrationContext,
        migrations: Migrations,
        report: Callable[[Progress], None],
        *,
        rate: float | None = None,
        wait_seconds: float = 600.0,
    ) -> None:
        self._context = context
        self._database = context.database
        self._state: Collection = context.database[COLLECTION]
        self._migrations = migrations
        self._report = report
        self._rate = rate
        self._wait_seconds = wait_seconds
        self._owner = secrets.token_hex(8)

    async def run(self) -> int:
        """Migrate to the newest version that this release knows; return the number of rewritten documents.

        Raises:
            CannotMigrate: the database is too new or too old, another job runs, instances of an older release still
                run, or documents can't be rewritten. Repeating the job continues.
            PyMongoError: MongoDB is unavailable. Repeating the job continues.
        """
        await self._take_lease()
        try:
            return await self._migrate()
        finally:
            ended = {"owner": self._owner, "until": datetime.fromtimestamp(0, UTC)}
            await self._state.update_one({"_id": JOB, "owner": self._owner}, {"$set": ended})

    async def _migrate(self) -> int:
        version, known = await stored_version(self._database), self._migrations.known
        if (
            refusal := refusal_of(self._database.name, version, oldest=self._migrations.oldest, known=known)
        ) is not None:
            raise CannotMigrate(refusal)
        pending = [each for each in self._migrations.steps if each.version > version]
        count = 0
        for migration in pending:
            count += await self._rewrite(migration)

        async def contract() -> None:
            nonlocal count
            for migration in pending:
                count += await self._rewrite(migration)

        end = time.monotonic() + self._wait_seconds
        while pending and (older := await raise_version(self._database, known, contract)):
            if time.monotonic() > end:
                raise CannotMigrate(
                    f"the documents of {self._database.name} are rewritten, but instances of an older release run"
                    f" ({', '.join(older)}): replace them, then run this again"
                )
            done, total = await self._counts(pending[-1])
            self._report(Progress(pending[-1], done, total, waits_for=tuple(older)))
            await self._pause(POLL_SECONDS)
        return count

    async def _rewrite(self, migration: Migration) -> int:
        """Rewrite the documents of the older shape until a pass finds none; return their number."""
        collection, started, count = self._database[migration.collection], time.monotonic(), 0
        first = await self._begin(migration)
        reported = 0.0
        fruitless = 0
        while True:
            in_this_pass = 0
            async for rewritten in self._batches(migration, collection):
                in_this_pass += rewritten
                count += rewritten
                seconds = max(time.monotonic() - started, 0.001)
                if time.monotonic() - reported > REPORT_SECONDS:
                    reported = time.monotonic()
                    self._report(Progress(migration, first.done + count, first.total, count / seconds))
                if self._rate is not None and count / seconds > self._rate:
                    await self._pause(count / self._rate - seconds)
            if migration.finish is not None:
                await migration.finish(self._context)
            left = await collection.count_documents(migration.older)
            if not left:
                break
            fruitless = 0 if in_this_pass else fruitless + 1
            if fruitless == MAX_FRUITLESS_PASSES:
                raise CannotMigrate(
                    f"{left} documents in {collection.full_name} can't be rewritten ({migration.title})"
                )
        self._report(
            Progress(migration, first.done + count, first.total, count / max(time.monotonic() - started, 0.001))
        )
        return count

    async def _batches(self, migration: Migration, collection: Collection) -> AsyncIterator[int]:
        """Rewrite one pass in the order of the IDs, from where the last job ended; yield the number of each batch."""
        row = {"_id": f"migration {migration.version}"}
        stored = await self._state.find_one(row) or {}
        position = stored.get("position")
        while True:
            after = {} if position is None else {"_id": {"$gt": position}}
            documents = await collection.find({"$and": [after, migration.older]}).sort("_id", 1).limit(BATCH).to_list()
            if not documents:
                break
            rewritten = await migration.change(self._context, collection, documents)
            position = documents[-1]["_id"]
            await self._renew_lease()
            await self._state.update_one(row, {"$set": {"position": position}, "$inc": {"done": rewritten}})
            yield rewritten
        await self._state.update_one(row, {"$unset": {"position": ""}})

    async def _begin(self, migration: Migration) -> Progress:
        row = {"_id": f"migration {migration.version}"}
        if await self._state.find_one(row) is None:
            total = await self._database[migration.collection].count_documents(migration.older)
            await upsert(self._state, row, {"$setOnInsert": {"total": total, "done": 0}})
        done, total = await self._counts(migration)
        progress = Progress(migration, done, total)
        self._report(progress)
        return progress

    async def _counts(self, migration: Migration) -> tuple[int, int]:
        stored = await self._state.find_one({"_id": f"migration {migration.version}"}) or {}
        done = stored.get("done", 0)
        # Instances of the release before have added some since the first count.
        return done, max(done, stored.get("total", 0))

    async def _take_lease(self) -> None:
        end = time.monotonic() + self._wait_seconds
        await upsert(self._state, {"_id": JOB}, {"$setOnInsert": {"until": datetime.fromtimestamp(0, UTC)}})
        ended = {"$expr": {"$lt": ["$until", "$$NOW"]}}
        while not (await self._state.update_one({"_id": JOB, **ended}, [{"$set": self._lease()}])).matched_count:
            if time.monotonic() > end:
                raise CannotMigrate(f"another job migrates {self._database.name}: let it end")
            await asyncio.sleep(min(POLL_SECONDS, self._wait_seconds))

    async def _renew_lease(self) -> None:
        found = await self._state.update_one({"_id": JOB, "owner": self._owner}, [{"$set": self._lease()}])
        if not found.matched_count:
            raise CannotMigrate(f"another job has taken over the migration of {self._database.name}")

    def _lease(self) -> Document:
        return {"owner": self._owner, "until": {"$add": ["$$NOW", LEASE_SECONDS * 1000]}}

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, LEASE_SECONDS / 2))
        await self._renew_lease()
