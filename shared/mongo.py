"""How a service reaches its database: durable writes, majority reads, bounded waits, UTC everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Final

import pymongo
from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]
Client = AsyncMongoClient[Document]

WRITE_CONCERN: Final = WriteConcern(w="majority", j=True)
"""Said aloud although it is the default: Jepsen showed what becomes of weaker ones."""

OPERATION_SECONDS: Final = 2.5
"""Well below the time that a caller waits: an outage must be noticed while there is time to say so."""
INDEX_SECONDS: Final = 60.0
"""An index over documents that are there already takes as long as it takes."""

ABANDONED_SECONDS: Final = 3.0
"""A transaction without a statement for so long belongs to a process that is gone."""

_DEPENDENCY_DOWN = (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)
_STEPPING_DOWN_CODES: Final = frozenset({91, 189, 10107, 11600, 11602, 13435, 13436, 262})
"""Shutdown in progress, primary stepped down, not writable, interrupted, time limit: another try may do."""


def connect(url: str, *, application: str, timeout: float = OPERATION_SECONDS) -> Client:
    """A client for one process; it connects when first used.

    Args:
        url: ``mongodb://…`` of a replica set (transactions need one).
        application: shown in the server's log.
        timeout: seconds that one operation may take in all, and finding a primary at most.
    """
    return AsyncMongoClient(
        url,
        appname=application,
        tz_aware=True,
        tzinfo=UTC,
        retryWrites=True,
        retryReads=True,
        w="majority",
        journal=True,
        readConcernLevel="majority",
        # pymongo's own bounds: cancelling an operation from outside closes its connection.
        timeoutMS=int(timeout * 1000),
        serverSelectionTimeoutMS=min(1000, int(timeout * 1000)),
        connectTimeoutMS=1000,
        maxPoolSize=64,
        uuidRepresentation="standard",
    )


def database(client: Client, name: str) -> Database:
    """A service's own database, its dates aware and in UTC."""
    options: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)
    return client.get_database(
        name, codec_options=options, write_concern=WRITE_CONCERN, read_concern=ReadConcern("majority")
    )


async def ensure_indexes(database: Database, indexes: Mapping[str, Sequence[IndexModel]]) -> None:
    """Make the collections and indexes that a service declares; those that are there stay.

    A collection made inside a transaction takes a lock that others wait for, hence all of them are made here.
    """
    with pymongo.timeout(INDEX_SECONDS):
        present = set(await database.list_collection_names())
        for name, wanted in indexes.items():
            if name not in present:
                await create_collection(database, name)
            for index in wanted:
                await _ensure_index(database, name, index)


async def _ensure_index(database: Database, collection: str, index: IndexModel) -> None:
    try:
        await database[collection].create_indexes([index])
    except OperationFailure as failure:
        expiry = index.document.get("expireAfterSeconds")
        if failure.code != 85 or expiry is None:  # noqa: PLR2004 -- IndexOptionsConflict
            raise
        # How long documents are kept is a setting, and all that may change about an index.
        await database.command(
            "collMod", collection, index={"name": index.document["name"], "expireAfterSeconds": expiry}
        )


async def create_collection(database: Database, name: str) -> None:
    """Make a collection; another instance may have just done so."""
    try:
        # The driver asks first by itself, and refuses in words of its own; the server judges better.
        await database.create_collection(name, check_exists=False)
    except OperationFailure as failure:
        if failure.code != 48:  # noqa: PLR2004 -- NamespaceExists
            raise


async def end_abandoned_transactions(client: Client) -> int:
    """End the transactions of this application that nobody goes on with; returns how many.

    MongoDB keeps a transaction, and its locks, for a minute after its process was killed, and whoever handles the same
    message next waits for it. Ours take milliseconds, so one without a statement for seconds is abandoned. Should its
    process only have been stopped for a while, it finds its commit refused and runs again.

    Raises:
        PyMongoError: MongoDB could not be asked, or does not let us.
    """
    admin = client.get_database("admin", read_concern=ReadConcern("local"))
    idle = {
        "appName": client.options.pool_options.appname,
        "transaction.timeInactiveMicros": {"$gte": int(ABANDONED_SECONDS * 1_000_000)},
    }
    found = await admin.aggregate([{"$currentOp": {"idleSessions": True}}, {"$match": idle}, {"$project": {"lsid": 1}}])
    sessions = [{"id": operation["lsid"]["id"]} async for operation in found]
    if sessions:
        await admin.command("killSessions", sessions, codec_options=client.codec_options)
    return len(sessions)


def dependency_down(error: BaseException) -> bool:
    """Whether the database could not be reached or is changing its primary: no fault of the message."""
    if isinstance(error, OperationFailure):
        return error.code in _STEPPING_DOWN_CODES or error.has_error_label("RetryableWriteError")
    return isinstance(error, _DEPENDENCY_DOWN) or (isinstance(error, PyMongoError) and error.timeout)
