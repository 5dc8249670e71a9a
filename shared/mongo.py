"""MongoDB access: durable writes, majority reads, bounded waits, dates in UTC."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC
from typing import Any, Final

import pymongo
from bson.codec_options import CodecOptions
from pydantic import SecretStr
from pymongo import AsyncMongoClient, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from shared.indexes import STORAGE
from shared.mongo_urls import InvalidMongoUrl, check_url, parsed_url
from shared.pymongo_patch import patch_pymongo

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]
Client = AsyncMongoClient[Document]

WRITE_CONCERN: Final = WriteConcern(w="majority", j=True)
"""Explicit although it is the default: Jepsen's tests show that weaker write concerns lose writes."""

OPERATION_SECONDS: Final = 2.5
"""Timeout of one operation; well below the time that a caller waits, so that an outage can still be reported. Lists for
operators have a longer one: ``OperatorList.read_seconds``."""
PING_SECONDS: Final = 1.0
"""Timeout of a ping."""
INDEX_SECONDS: Final = 60.0
"""Timeout of creating indexes, which takes long on a large collection."""

IDLE_TRANSACTION_SECONDS: Final = 3.0
"""A transaction without a statement for so long belongs to a dead process; Nest's transactions take milliseconds."""

_TRANSIENT_CODES: Final = frozenset({91, 189, 10107, 11600, 11602, 13435, 13436})
"""Error codes: shutdown in progress, primary stepped down, not writable, interrupted."""
_EXCEEDED_TIME_LIMIT: Final = 262
"""Error code of an operation that MongoDB stopped at a time limit of its own. A limit of the client's is code 50, for
which pymongo has ``timeout``."""


_UNAUTHORIZED: Final = 13
_LOGIN_REFUSED: Final = "refuses its user name, password or certificate"
_NO_REPLICA_SET: Final = (
    "is a standalone server. Nest needs a replica set, of one member at least: start mongod with --replSet rs0, then"
    " run rs.initiate() in mongosh"
)
_REFUSALS: Final = {
    11: _LOGIN_REFUSED,
    _UNAUTHORIZED: "does not permit its user to read and write its database: grant it the role readWrite",
    18: _LOGIN_REFUSED,
    76: _NO_REPLICA_SET,
    8000: _LOGIN_REFUSED,
}
"""Error codes: user not found, unauthorized, authentication failed, no replication enabled, Atlas error."""
_ILLEGAL_OPERATION: Final = 20
"""Error code that a standalone server has for transactions, among others."""


def connect(
    url: SecretStr | str, *, application: str, timeout: float = OPERATION_SECONDS, listeners: Sequence[Any] = ()
) -> Client:
    """Create a client of a replica set, which transactions require; it connects at its first operation.

    ``application`` is its name in the server's log. One operation may take ``timeout`` seconds, of which finding a
    primary takes at most 1 s. Timeouts and the size of the pool in the connection string have no effect. pymongo
    reports commands to ``listeners``.

    Raises:
        InvalidMongoUrl: as ``check_url``, or the driver refuses its options.
    """
    check_url(url if isinstance(url, SecretStr) else SecretStr(url))
    patch_pymongo()
    try:
        return _client(url, application=application, timeout=timeout, listeners=listeners)
    except (ValueError, OSError, PyMongoError) as failure:
        refused = type(failure).__name__
    # Raised here, since the driver's text and the variables of its frames contain the password.
    raise InvalidMongoUrl(f"the driver refuses its options ({refused})")


def _client(url: SecretStr | str, *, application: str, timeout: float, listeners: Sequence[Any]) -> Client:
    return AsyncMongoClient(
        url.get_secret_value() if isinstance(url, SecretStr) else url,
        appname=application,
        tz_aware=True,
        tzinfo=UTC,
        retryWrites=True,
        retryReads=True,
        w="majority",
        journal=True,
        readConcernLevel="majority",
        readPreference="primary",
        # Timeouts of pymongo itself, because cancelling an operation from outside closes its connection.
        timeoutMS=int(timeout * 1000),
        serverSelectionTimeoutMS=min(1000, int(timeout * 1000)),
        connectTimeoutMS=1000,
        maxPoolSize=64,
        uuidRepresentation="standard",
        event_listeners=list(listeners),
    )


class UnfitServer(Exception):
    """MongoDB answers, but can't be used. The text says why, and contains no part of the connection string."""


def refusal(error: BaseException) -> str | None:
    """Why MongoDB refuses everything until an operator acts, as a predicate; None for other errors."""
    if not isinstance(error, OperationFailure):
        return None
    if error.code == _ILLEGAL_OPERATION and "Transaction numbers" in str(error):
        return _NO_REPLICA_SET
    return _REFUSALS.get(error.code or 0)


def describe_failure(error: BaseException) -> str:
    """The driver's text without its description of the topology, which is long and repeats it."""
    return re.sub(r"\s*\(configured timeouts:[^)]*\)", "", str(error).partition(", Timeout:")[0])


async def check_server(client: Client, url: SecretStr) -> None:
    """Check that the server is a member of the replica set, or a router of a sharded cluster.

    Raises:
        UnfitServer: it is a standalone server, or a member of another replica set.
        PyMongoError: MongoDB is unavailable.
    """
    try:
        with pymongo.timeout(PING_SECONDS):
            hello = await client.get_database("admin").command("hello")
    except ConnectionFailure:
        # The driver reports a server that does not belong to the replica set of the URL as unreachable.
        if (unfit := await _unfit_member(url)) is not None:
            raise UnfitServer(unfit) from None
        raise
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise UnfitServer(_NO_REPLICA_SET)


async def _unfit_member(url: SecretStr) -> str | None:
    """What is wrong with the first server of a URL that answers; None if none answers, or it is to be waited for."""
    parsed = None if url.get_secret_value().startswith("mongodb+srv:") else parsed_url(url)[0]
    if parsed is None:
        return None
    options = parsed["options"]
    tls = {name: value for name, value in options.items() if name.lower().startswith("tls")}
    for host, port in parsed["nodelist"]:
        member: Client = AsyncMongoClient(host, port, directConnection=True, timeoutMS=int(PING_SECONDS * 1000), **tls)
        try:
            hello = await member.get_database("admin").command("hello")
        except PyMongoError:
            continue
        finally:
            await member.close()
        found, wanted = hello.get("setName"), options.get("replicaSet")
        if found is not None and wanted not in (None, found):
            return f"is the replica set {found}, and the URL names {wanted}"
        # A member whose replica set is not initiated yet has ``isreplicaset``.
        known = found is not None or hello.get("isreplicaset") or hello.get("msg") == "isdbgrid"
        return None if known else _NO_REPLICA_SET
    return None


def database(client: Client, name: str) -> Database:
    """Return a database whose dates are timezone-aware and in UTC."""
    options: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)
    return client.get_database(
        name, codec_options=options, write_concern=WRITE_CONCERN, read_concern=ReadConcern("majority")
    )


def indexes_of(*stores: Any) -> dict[str, Sequence[IndexModel]]:
    """Return the ``INDEXES`` that store classes declare, by the name of their ``COLLECTION``."""
    return {store.COLLECTION: store.INDEXES for store in stores}


def former_indexes_of(*stores: Any) -> dict[str, Sequence[str]]:
    """Return the names of indexes that earlier releases created, ``FORMER_INDEXES`` of stores, by collection name."""
    return {store.COLLECTION: store.FORMER_INDEXES for store in stores}


async def drop_indexes(database: Database, names: Mapping[str, Sequence[str]]) -> None:
    """Drop indexes, given by collection name, that exist."""
    with pymongo.timeout(INDEX_SECONDS):
        for collection, unwanted in names.items():
            existing = {index["name"] async for index in await database[collection].list_indexes()}
            for name in existing.intersection(unwanted):
                await _drop_index(database[collection], name)


async def _drop_index(collection: Collection, name: str) -> None:
    try:
        await collection.drop_index(name)
    except OperationFailure as failure:
        # Another instance has just dropped it.
        if failure.code != 27:  # noqa: PLR2004 -- IndexNotFound
            raise


async def ensure_indexes(database: Database, indexes: Mapping[str, Sequence[IndexModel]]) -> None:
    """Create the missing collections and indexes, given by collection name.

    A collection that is created inside a transaction takes a lock that blocks other transactions, so all of them are
    created here.

    Raises:
        UnfitServer: the user may not change the expiry of an index.
        PyMongoError: MongoDB is unavailable, or an index has another option than its expiry and storage changed.
    """
    with pymongo.timeout(INDEX_SECONDS):
        existing = set(await database.list_collection_names())
        for name, wanted in indexes.items():
            if name not in existing:
                await create_collection(database, name)
            for index in wanted:
                await _ensure_index(database, name, index.document)


async def _ensure_index(database: Database, collection: str, wanted: Mapping[str, Any]) -> None:
    try:
        await database.command("createIndexes", collection, indexes=[wanted], writeConcern=WRITE_CONCERN.document)
    except OperationFailure as failure:
        if failure.code != 85:  # noqa: PLR2004 -- IndexOptionsConflict
            raise
        if "storageEngine" in wanted:
            # An index of an earlier release keeps its storage.
            rest = {option: value for option, value in wanted.items() if option != "storageEngine"}
            await _ensure_index(database, collection, rest)
        elif "expireAfterSeconds" in wanted:
            # The expiry is a setting, and the only other option that may change.
            await _set_expiry(database, collection, wanted)
        else:
            raise


async def _set_expiry(database: Database, collection: str, wanted: Mapping[str, Any]) -> None:
    try:
        changed = {option: wanted[option] for option in ("name", "expireAfterSeconds")}
        await database.command("collMod", collection, index=changed)
    except OperationFailure as failure:
        if failure.code != _UNAUTHORIZED:
            raise
        raise UnfitServer(
            f"does not permit its user to change the expiry of {collection}, which a setting has changed: grant it the"
            f" role dbAdmin on {database.name}"
        ) from None


async def create_collection(database: Database, name: str) -> None:
    """Create a collection, unless another instance has just created it."""
    try:
        # Without the driver's own check, which is not atomic and raises an error of its own.
        await database.create_collection(name, check_exists=False, storageEngine=STORAGE)
    except OperationFailure as failure:
        if failure.code != 48:  # noqa: PLR2004 -- NamespaceExists
            raise


async def kill_idle_transactions(client: Client) -> int:
    """Kill the idle transactions of this application; return their number.

    MongoDB keeps the transaction of a killed process, and its locks, for a minute, and the next delivery of the same
    message waits for it. If the process was only suspended, its commit fails and the handler runs again.

    Raises:
        PyMongoError: MongoDB is unavailable or denies the permission.
    """
    admin = client.get_database("admin", read_concern=ReadConcern("local"))
    idle = {
        "appName": client.options.pool_options.appname,
        "transaction.timeInactiveMicros": {"$gte": int(IDLE_TRANSACTION_SECONDS * 1_000_000)},
    }
    operations = await admin.aggregate(
        [{"$currentOp": {"idleSessions": True}}, {"$match": idle}, {"$project": {"lsid": 1}}]
    )
    sessions = [{"id": operation["lsid"]["id"]} async for operation in operations]
    if sessions:
        await admin.command("killSessions", sessions, codec_options=client.codec_options)
    return len(sessions)


def time_limit(seconds: float | None) -> AbstractContextManager[object]:
    """Limit all operations in a block together to so many seconds; None for the usual limit of each."""
    return nullcontext() if seconds is None else pymongo.timeout(seconds)


async def responds(client: Client) -> bool:
    """Return whether the primary answers a ping.

    The client is one of its own, with a timeout of ``PING_SECONDS``: others may have no free connection.
    """
    try:
        await client.get_database("admin").command("ping")
    except PyMongoError:
        return False
    return True


async def usable(collection: Collection) -> bool:
    """Return whether a transaction can write to a collection; its client as for ``responds``.

    An update that finds no document needs the same rights and the same server as one that does, and writes nothing.
    """
    try:
        async with collection.database.client.start_session() as session, await session.start_transaction():
            await collection.update_one({"_id": ""}, {"$set": {"_id": ""}}, session=session)
    except PyMongoError:
        return False
    return True


def dependency_down(error: BaseException) -> bool:
    """Return True if an error is not the operation's fault.

    MongoDB is unreachable, changes its primary, is slow, or refuses everything until an operator acts.
    """
    if timed_out(error) or isinstance(error, ConnectionFailure) or refusal(error) is not None:
        return True
    return isinstance(error, OperationFailure) and (
        error.code in _TRANSIENT_CODES or error.has_error_label("RetryableWriteError")
    )


def timed_out(error: BaseException) -> bool:
    """Return True if an operation took longer than its time limit, whether MongoDB is away or slow."""
    if isinstance(error, OperationFailure) and error.code == _EXCEEDED_TIME_LIMIT:
        return True
    return isinstance(error, PyMongoError) and error.timeout
