"""Version of a service's database: which releases may use it, and which instances do.

The collection ``schema`` holds it. A version is the number of migrations (``shared.migrations``) whose older documents
are gone for good. A release knows a number of migrations. It reads the documents from before each of them too, so it
serves every database from ``Migrations.oldest`` to the number that it knows, and refuses all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from shared.bus.background_task import BackgroundTask
from shared.indexes import expiry_index
from shared.mongo import Collection, Database, Document, dependency_down
from shared.settings import SettingsError
from shared.telemetry import log

COLLECTION: Final = "schema"
VERSION: Final = "version"
"""ID of the document with the version. A database of a release before versions has none: version 0."""
SEEN_SECONDS: Final = 15.0
"""Interval at which an instance reports that it uses the database."""
GONE_SECONDS: Final = 60
"""Time without a report after which an instance is gone."""
INDEXES: Final = {COLLECTION: [expiry_index("seenAt", timedelta(hours=1))]}
"""Removes the reports of instances that are gone; no other document has the field."""


async def stored_version(database: Database) -> int:
    """Return the version of a database; 0 if it has none."""
    document = await database[COLLECTION].find_one({"_id": VERSION})
    return 0 if document is None else int(document["version"])


async def claimed_version(database: Database) -> int:
    """Return the version that an instance must know: the next one while a job is about to set it."""
    document = await database[COLLECTION].find_one({"_id": VERSION}) or {}
    return max(int(document.get("version", 0)), int(document.get("next", 0)))


async def raise_version(database: Database, version: int, contract: Callable[[], Awaitable[None]]) -> list[str]:
    """Raise the version of a database after a last step, unless instances use it that don't know the version.

    Args:
        database: the database.
        version: the new version.
        contract: the last step. No older instance runs meanwhile, and none can start.

    Returns:
        Those instances; empty if the version was raised.
    """
    row = {"_id": VERSION}
    await upsert(database[COLLECTION], row, {"$set": {"next": version}, "$setOnInsert": {"version": 0}})
    # An instance reports first and reads the version then; this is the other way round, so one sees the other.
    if older := await older_instances(database, version):
        await database[COLLECTION].update_one(row, {"$unset": {"next": ""}})
        return older
    await contract()
    await database[COLLECTION].update_one(row, {"$max": {"version": version}, "$unset": {"next": ""}})
    return []


def refusal_of(name: str, version: int, *, oldest: int, known: int) -> str | None:
    """Return why a release can't use a database, in one line with the remedy; None if it can.

    Args:
        name: name of the database.
        version: its version.
        oldest: oldest version that the release reads.
        known: newest version that it knows.
    """
    if version > known:
        return (
            f"the database {name} has version {version}, and this release knows versions up to {known}: start the"
            " release that migrated it, or a newer one, or restore a backup from before its migration"
        )
    if version < oldest:
        return (
            f"the database {name} has version {version}, and this release reads versions from {oldest}: run nest"
            " database migrate of the release before this one first"
        )
    return None


class DatabaseVersion(BackgroundTask):
    """The check of the version at the start of an instance, and its reports that it uses the database.

    Args:
        database: database of the service.
        oldest: oldest version that this release reads.
        known: newest version that it knows.

    Attributes:
        problem: why this instance must not run any more; None if it may.
    """

    def __init__(self, database: Database, *, oldest: int, known: int) -> None:
        self._database = database
        self._collection: Collection = database[COLLECTION]
        self._oldest = oldest
        self._known = known
        self._instance = ""
        self._stopping = asyncio.Event()
        self.problem: str | None = None

    async def check(self) -> None:
        """Check the version; a new database gets the newest one. Call it before collections are created.

        Raises:
            SettingsError: this release can't use the database.
            PyMongoError: MongoDB is unavailable.
        """
        if not await self._database.list_collection_names(filter={"name": "inbox"}):
            await upsert(self._collection, {"_id": VERSION}, {"$setOnInsert": {"version": self._known}})
        version = await claimed_version(self._database)
        if (refusal := self._refusal(version)) is not None:
            raise SettingsError(refusal)
        if version < self._known:
            log.info("database not migrated", database=self._database.name, version=version, known=self._known)

    async def begin(self, instance: str) -> None:
        """Report the use of the database under this instance name, and again every ``SEEN_SECONDS``.

        Raises:
            SettingsError: the database became too new meanwhile.
            PyMongoError: MongoDB is unavailable.
        """
        self._instance = f"instance {instance}"
        await self._report()
        if self.problem is not None:
            raise SettingsError(self.problem)
        self.start()

    async def stop(self) -> None:
        """Withdraw the report."""
        # Cancelling alone is not enough: pymongo turns it into a connection error, after which the loop would go on.
        self._stopping.set()
        await super().stop()
        if self._instance:
            await _unless_down(lambda: self._collection.delete_one({"_id": self._instance}))

    async def _report(self) -> None:
        report = {"knows": self._known, "seenAt": "$$NOW"}
        await upsert(self._collection, {"_id": self._instance}, [{"$set": report}])
        self.problem = self._refusal(await claimed_version(self._database))

    def _refusal(self, version: int) -> str | None:
        return refusal_of(self._database.name, version, oldest=self._oldest, known=self._known)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            await asyncio.sleep(SEEN_SECONDS)
            before = self.problem
            await _unless_down(self._report)
            if self.problem is not None and before is None:
                log.critical("database too new", reason=self.problem)


async def older_instances(database: Database, version: int) -> list[str]:
    """Return the running instances that don't know a version, each with what it knows."""
    recent = {"$gt": ["$seenAt", {"$subtract": ["$$NOW", GONE_SECONDS * 1000]}]}
    found = database[COLLECTION].find({"knows": {"$lt": version}, "$expr": recent}).sort("_id", ASCENDING)
    return [f"{each['_id'].removeprefix('instance ')} knows version {each['knows']}" async for each in found]


async def upsert(collection: Collection, query: Document, change: Any) -> None:
    """Update a document, or insert it; another process may insert it at the same time."""
    try:
        await collection.update_one(query, change, upsert=True)
    except DuplicateKeyError:
        await collection.update_one(query, change)


async def _unless_down(attempt: Callable[[], Awaitable[Any]]) -> None:
    try:
        await attempt()
    except Exception as failure:  # noqa: BLE001 -- a report must not end an instance
        if not dependency_down(failure):
            log.error("use of the database not reported", exc_info=failure)
