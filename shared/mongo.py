"""MongoDB access: durable writes, majority reads, bounded waits, dates in UTC."""

from __future__ import annotations

import re
import ssl
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

import pymongo
from bson.codec_options import CodecOptions
from pydantic import SecretStr
from pymongo import AsyncMongoClient, IndexModel, ReplaceOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]
Client = AsyncMongoClient[Document]

WRITE_CONCERN: Final = WriteConcern(w="majority", j=True)
"""Explicit although it is the default: Jepsen's tests show that weaker write concerns lose writes."""

_FIXED_OPTIONS: Final = {
    **dict.fromkeys(("w", "readConcernLevel"), "majority"),
    **dict.fromkeys(("journal", "j", "retryWrites", "retryReads"), "true"),
    "readPreference": "primary",
    **dict.fromkeys(("wTimeoutMS", "wtimeout", "fsync", "readPreferenceTags", "maxStalenessSeconds"), None),
}
"""Options of a connection string with their only permitted value, or None for those that are never permitted.

https://www.mongodb.com/docs/manual/reference/connection-string-options/"""

OPERATION_SECONDS: Final = 2.5
"""Timeout of one operation; well below the time that a caller waits, so that an outage can still be reported. Lists for
operators have a longer one: ``OperatorList.read_seconds``."""
PING_SECONDS: Final = 1.0
"""Timeout of a ping."""
INDEX_SECONDS: Final = 60.0
"""Timeout of creating indexes, which takes long on a large collection."""

REWRITTEN_AT_ONCE: Final = 500
"""Documents in one batch of ``rewrite``, which takes some 50 ms."""

IDLE_TRANSACTION_SECONDS: Final = 3.0
"""A transaction without a statement for so long belongs to a dead process; Nest's transactions take milliseconds."""

_TRANSIENT_CODES: Final = frozenset({91, 189, 10107, 11600, 11602, 13435, 13436})
"""Error codes: shutdown in progress, primary stepped down, not writable, interrupted."""
_EXCEEDED_TIME_LIMIT: Final = 262
"""Error code of an operation that MongoDB stopped at a time limit of its own. A limit of the client's is code 50, for
which pymongo has ``timeout``."""


_AUTHENTICATION_FAILED: Final = 18
"""Error code of a refused user name, password or certificate."""
_WITHOUT_PASSWORD: Final = frozenset({"MONGODB-X509", "MONGODB-OIDC", "MONGODB-AWS", "GSSAPI"})
"""Mechanisms whose credential is a client certificate, a token, the machine's identity or a Kerberos ticket.

https://www.mongodb.com/docs/manual/core/authentication/"""


class InvalidMongoUrl(ValueError):
    """A connection string cannot be used. The text contains no part of it."""


class OptionNotPermitted(InvalidMongoUrl):
    """A connection string weakens durable writes or reads from the primary.

    The text names the option and contains no other part of the URL.
    """


def connect(url: SecretStr | str, *, application: str, timeout: float = OPERATION_SECONDS) -> Client:
    """Create a client of a replica set, which transactions require; it connects at its first operation.

    ``application`` is its name in the server's log. One operation may take ``timeout`` seconds, of which finding a
    primary takes at most 1 s. Timeouts and the size of the pool in the connection string have no effect.

    Raises:
        InvalidMongoUrl: as ``check_url``, or the driver refuses its options.
    """
    check_url(url if isinstance(url, SecretStr) else SecretStr(url))
    try:
        return _client(url, application=application, timeout=timeout)
    except (ValueError, OSError, PyMongoError) as failure:
        refused = type(failure).__name__
    # Raised here, since the driver's text and the variables of its frames contain the password.
    raise InvalidMongoUrl(f"the driver refuses its options ({refused})")


def _client(url: SecretStr | str, *, application: str, timeout: float) -> Client:
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
    )


def check_url(url: SecretStr, *, credentials_required: bool = False) -> None:
    """Check a connection string without connecting; the host of ``mongodb+srv://`` is not looked up.

    Args:
        url: the connection string.
        credentials_required: whether it must name a user with a password, or a mechanism that needs no password, such
            as X.509 client certificates.

    Raises:
        OptionNotPermitted: an option weakens the guarantees.
        InvalidMongoUrl: it is not a valid connection string, or has no credentials.
    """
    check_options(url.get_secret_value())
    parsed, reason = _parsed(url)
    if parsed is None:
        # Raised here, since the driver's text and the variables of its frames contain the password.
        raise InvalidMongoUrl(reason)
    user, password, mechanism = parsed["username"], parsed["password"], parsed["options"].get("authMechanism")
    if credentials_required and mechanism not in _WITHOUT_PASSWORD and not (user and password):
        raise InvalidMongoUrl(
            "has no credentials, which production requires: mongodb://<user>:<password>@…, or a client certificate"
            " with authMechanism=MONGODB-X509"
        )


def _parsed(url: SecretStr) -> tuple[Document | None, str]:
    """Parse a connection string; if it is invalid, return the reason, without any part of it."""
    # The driver's parser looks the host of mongodb+srv:// up, so it gets the same text as mongodb://.
    text = re.sub(r"^mongodb\+srv://", "mongodb://", url.get_secret_value())
    try:
        with warnings.catch_warnings():
            # Unknown options are reported by the client.
            warnings.simplefilter("ignore")
            parsed = parse_uri(text, warn=True)
            wrong = _wrong_tls_file(parsed["options"])
            return (None if wrong else parsed), wrong
    except OSError as unreadable:
        given = [option.partition("=") for option in re.split("[?&;]", text)[1:]]
        named = [name.strip() for name, _, value in given if unquote(value) == unreadable.filename]
        option = named[0] if named else "a TLS option"
        return None, f"{option} names a file that cannot be read ({unreadable.strerror})"
    except (ValueError, PyMongoError):
        return None, "is not a connection string mongodb://…; percent-encode special characters of user and password"


def _wrong_tls_file(options: Mapping[str, Any]) -> str:
    """Return what is wrong with the TLS files of a connection string; empty if they can be used."""
    context = ssl.create_default_context()
    for option in ("tlsCAFile", "tlsCRLFile"):
        if (file := options.get(option, options.get(option.lower()))) is not None:
            try:
                context.load_verify_locations(file)
            except OSError:
                return f"{option} names a file without PEM certificates"
    if (file := options.get("tlsCertificateKeyFile")) is not None:
        password = options.get("tlsCertificateKeyFilePassword") or ""
        try:
            # With a function, because without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(file, password=lambda: password)
        except OSError:
            return "tlsCertificateKeyFile names a file without a PEM certificate and its key, or with another password"
    return ""


def credentials_refused(error: BaseException) -> bool:
    """Return True if MongoDB refused the credentials of the connection string."""
    return isinstance(error, OperationFailure) and error.code == _AUTHENTICATION_FAILED


def check_options(url: str) -> None:
    """Check that a connection string does not weaken the guarantees: durable writes, and reads from the primary.

    Raises:
        OptionNotPermitted: it has such an option.
    """
    names = {name.lower(): name for name in _FIXED_OPTIONS}
    for option in re.split("[?&;]", url)[1:]:
        key, _, given = option.partition("=")
        # The driver ignores case and white space too.
        name = names.get(key.strip().lower())
        if name is None:
            continue
        value = _FIXED_OPTIONS[name]
        if value is None:
            raise OptionNotPermitted(f"remove the option {name}, which Nest does not permit")
        if unquote_plus(given).strip() != value:
            raise OptionNotPermitted(f"remove the option {name}, or set it to {value}: Nest permits no other value")


def database(client: Client, name: str) -> Database:
    """Return a database whose dates are timezone-aware and in UTC."""
    options: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)
    return client.get_database(
        name, codec_options=options, write_concern=WRITE_CONCERN, read_concern=ReadConcern("majority")
    )


def indexes_of(*stores: Any) -> dict[str, Sequence[IndexModel]]:
    """Return the ``INDEXES`` that store classes declare, by the name of their ``COLLECTION``."""
    return {store.COLLECTION: store.INDEXES for store in stores}


async def ensure_indexes(database: Database, indexes: Mapping[str, Sequence[IndexModel]]) -> None:
    """Create the missing collections and indexes, given by collection name.

    A collection that is created inside a transaction takes a lock that blocks other transactions, so all of them are
    created here.
    """
    with pymongo.timeout(INDEX_SECONDS):
        existing = set(await database.list_collection_names())
        for name, wanted in indexes.items():
            if name not in existing:
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
        # The expiry is a setting, and the only option of an index that may change.
        await database.command(
            "collMod", collection, index={"name": index.document["name"], "expireAfterSeconds": expiry}
        )


async def rewrite(collection: Collection, query: Document, change: Callable[[Document], Document]) -> int:
    """Replace every document that a query finds by its changed form, which the query must not find; return the number.

    Works in batches of ``REWRITTEN_AT_ONCE``. A document whose ``version`` changes meanwhile is not replaced.
    """
    count = 0
    while documents := await collection.find(query).limit(REWRITTEN_AT_ONCE).to_list():
        replacements = [
            ReplaceOne({"_id": document["_id"], "version": document["version"]}, change(document))
            for document in documents
        ]
        replaced = (await collection.bulk_write(replacements, ordered=False)).modified_count
        if not replaced:
            break
        count += replaced
    return count


async def create_collection(database: Database, name: str) -> None:
    """Create a collection, unless another instance has just created it."""
    try:
        # Without the driver's own check, which is not atomic and raises an error of its own.
        await database.create_collection(name, check_exists=False)
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


def dependency_down(error: BaseException) -> bool:
    """Return True if an error is not the operation's fault: MongoDB is unreachable, changes its primary, or is slow."""
    if timed_out(error) or isinstance(error, ConnectionFailure):
        return True
    return isinstance(error, OperationFailure) and (
        error.code in _TRANSIENT_CODES or error.has_error_label("RetryableWriteError")
    )


def timed_out(error: BaseException) -> bool:
    """Return True if an operation took longer than its time limit, whether MongoDB is away or slow."""
    if isinstance(error, OperationFailure) and error.code == _EXCEEDED_TIME_LIMIT:
        return True
    return isinstance(error, PyMongoError) and error.timeout
