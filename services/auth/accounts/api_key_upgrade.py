"""Upgrade of applications of earlier releases, whose document ID was the UUID of their API key.

Every application gets a new ID, under which its users are stored too, and a keyed hash of its key. Users are moved in
batches after their application. The next job continues an interrupted one: the new ID is computed from the former one,
which the users that were not moved still have. An instance of an earlier release does not find the moved applications.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import pymongo
from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError

from services.auth.accounts.models import upgraded_id
from shared.migrations import Migration, MigrationContext
from shared.mongo import Collection, Database, Document
from shared.sealing import Sealer
from shared.telemetry import log

OLDER: Final[Document] = {"keyHash": None}
"""Documents of before 2026-11-28."""
KEY_PURPOSE: Final = "api key"
"""Purpose of the keyed hashes of API keys."""
MOVED_AT_ONCE: Final = 500
"""Users in one batch, which takes some 50 ms."""
SCAN_SECONDS: Final = 60.0
"""Time limit of finding the applications that have users."""
_DUPLICATE_KEY: Final = 11_000


async def _upgrade_batch(context: MigrationContext, _applications: Collection, documents: Sequence[Document]) -> int:
    for document in documents:
        key_hash = key_hash_of(context.sealer, UUID(document["_id"]))
        await upgrade_application(context.database, document, key_hash)
    return len(documents)


async def _move_left_users(context: MigrationContext) -> None:
    """Move the users that an interrupted job has left under the former ID of their application."""
    database = context.database
    with pymongo.timeout(SCAN_SECONDS):
        ids = await database["application_users"].distinct("applicationId")
    for former_id in ids:
        # Empty for applications of this release, and for those whose users are being deleted.
        if await database["applications"].find_one({"_id": upgraded_id(former_id)}, {"_id": 1}) is not None:
            await _move_users(database, former_id)


MIGRATION: Final = Migration(
    version=3,
    title="keyed hashes of API keys",
    collection="applications",
    older=OLDER,
    change=_upgrade_batch,
    finish=_move_left_users,
)


def key_hash_of(sealer: Sealer, key_id: UUID) -> str:
    """Return the keyed hash of the API key with this UUID, as it is stored."""
    return sealer.keyed_hash(KEY_PURPOSE, key_id.bytes)


async def upgrade_application(database: Database, document: Document, key_hash: str) -> None:
    """Move one application with its users, unless another instance has just done so."""
    former_id, applications = document["_id"], database["applications"]
    moved = {**document, "_id": upgraded_id(former_id), "keyHash": key_hash, "version": document["version"] + 1}

    async def move(session: AsyncClientSession) -> Any:
        former = {"_id": former_id, "version": document["version"]}
        # The unique index on owner and name permits only one of the two documents.
        if (await applications.delete_one(former, session=session)).deleted_count:
            await applications.insert_one(moved, session=session)

    async with database.client.start_session() as session:
        await session.with_transaction(move)
    await _move_users(database, former_id)


async def _move_users(database: Database, former_id: str) -> None:
    users, new_id = database["application_users"], upgraded_id(former_id)
    change = {"$set": {"applicationId": new_id}, "$inc": {"version": 1}}
    former = {"applicationId": former_id}
    while found := await users.find(former, {"_id": 1}).limit(MOVED_AT_ONCE).to_list():
        moves = [UpdateOne({**former, "_id": user["_id"]}, change) for user in found]
        try:
            await users.bulk_write(moves, ordered=False)
        except BulkWriteError as failed:
            codes = {error["code"] for error in failed.details["writeErrors"]}
            if codes != {_DUPLICATE_KEY}:
                raise
            # The address was registered again while an instance of an earlier release was still running.
            log.error("users not moved: address registered twice", count=len(failed.details["writeErrors"]))
            return
