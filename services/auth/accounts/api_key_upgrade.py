"""Upgrade of applications of earlier releases, whose document ID was the UUID of their API key.

Every application gets a new ID, under which its users are stored too, and a keyed hash of its key. One transaction
moves an application with all of its users, so an interrupted upgrade continues at the next start. An instance of an
earlier release does not find the moved applications.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import pymongo
from pymongo.asynchronous.client_session import AsyncClientSession

from services.auth.accounts.models import upgraded_id
from shared.mongo import Database, Document
from shared.telemetry import log

OLDER: Final[Document] = {"keyHash": None}
"""Documents of before 2026-11-28."""
MOVE_SECONDS: Final = 60.0
"""Time limit of one application: moving 100,000 users takes some seconds. MongoDB ends a transaction after 60 s."""


async def upgrade_applications(database: Database, key_hash: Callable[[UUID], str]) -> None:
    """Move every application of an earlier release; ``key_hash`` returns the keyed hash of a key's UUID."""
    count = 0
    while (document := await database["applications"].find_one(OLDER)) is not None:
        await upgrade_application(database, document, key_hash(UUID(document["_id"])))
        count += 1
    if count:
        log.info("API keys replaced by keyed hashes", count=count)


async def upgrade_application(database: Database, document: Document, key_hash: str) -> None:
    """Move one application with its users, unless another instance has just done so."""
    former_id, new_id = document["_id"], upgraded_id(document["_id"])
    applications, users = database["applications"], database["application_users"]
    moved = {**document, "_id": new_id, "keyHash": key_hash, "version": document["version"] + 1}

    async def move(session: AsyncClientSession) -> Any:
        version = {"_id": former_id, "version": document["version"]}
        if not (await applications.delete_one(version, session=session)).deleted_count:
            return
        await applications.insert_one(moved, session=session)
        change = {"$set": {"applicationId": new_id}, "$inc": {"version": 1}}
        await users.update_many({"applicationId": former_id}, change, session=session)

    with pymongo.timeout(MOVE_SECONDS):
        async with database.client.start_session() as session:
            await session.with_transaction(move)
