"""Bulk writes: the writes of many works as few MongoDB commands, one per kind of write and collection.

The commands are built here, because ``insert_many`` and ``bulk_write`` of pymongo cost a sixth more CPU. They are sent
together, over one connection: a round trip for each would take as long as the writes.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import bson
import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, DocumentTooLarge

from shared.bus.work import Delete, Insert, Replace, RequireVersion, Write
from shared.mongo import Collection, Document

MAX_COMMAND_BYTES: Final = 15 * 1024 * 1024
"""Size of the operations in one command. A larger operation is sent alone."""
MAX_OPERATION_BYTES: Final = 16 * 1024 * 1024
"""MongoDB's maximum. pymongo refuses a larger command as well, but closes its connection, with the other commands."""
_FIELDS: Final = {"delete": "deletes", "update": "updates", "insert": "documents"}
"""Kinds of commands, in the order of their execution, with the field that holds their operations."""


class VersionConflict(Exception):
    """Another message has changed what the handler read; the handler must run again."""


@dataclass(slots=True)
class Targets:
    """Documents that works write or require, by collection name and ``_id``."""

    written: set[tuple[str, Any]] = field(default_factory=set)
    required: set[tuple[str, Any]] = field(default_factory=set)

    def conflict_with(self, other: Targets) -> bool:
        """Return True if one writes what the other writes or requires. Both may require the same document."""
        return not (
            self.written.isdisjoint(other.written)
            and self.written.isdisjoint(other.required)
            and self.required.isdisjoint(other.written)
        )

    def add(self, other: Targets) -> None:
        """Add the documents of ``other``."""
        self.written |= other.written
        self.required |= other.required


def targets(writes: Iterable[Write]) -> Targets:
    """Return the documents that these writes write or require."""
    result = Targets()
    for write in writes:
        if isinstance(write, RequireVersion):
            result.required.add((write.collection.name, write.id))
        else:
            document_id = write.id if isinstance(write, Delete) else write.document["_id"]
            result.written.add((write.collection.name, document_id))
    return result


class BulkWrite(NamedTuple):
    """Operations of one kind, ``delete``, ``update`` or ``insert``, on one collection, in MongoDB's form."""

    kind: str
    collection: Collection
    operations: Sequence[Document]


def inserts(collection: Collection, documents: Sequence[Document]) -> BulkWrite:
    """Return the inserts of documents."""
    return BulkWrite("insert", collection, documents)


def puts(collection: Collection, documents: Sequence[Document]) -> BulkWrite:
    """Return the writes that insert documents, each in place of the one that has its ID."""
    updates = [{"q": {"_id": document["_id"]}, "u": document, "upsert": True} for document in documents]
    return BulkWrite("update", collection, updates)


def bulk_writes(writes: Iterable[Write]) -> list[BulkWrite]:
    """Combine writes: deletes, replaces and version checks, then inserts."""
    collections: dict[str, Collection] = {}
    operations: dict[str, dict[str, list[Document]]] = {kind: defaultdict(list) for kind in _FIELDS}
    required: set[tuple[str, Any, int]] = set()
    for write in writes:
        name = write.collection.name
        collections[name] = write.collection
        if isinstance(write, Insert):
            operations["insert"][name].append(write.document)
        elif isinstance(write, Delete):
            operations["delete"][name].append({"q": {"_id": write.id, "version": write.version}, "limit": 1})
        elif isinstance(write, Replace):
            guard = {"_id": write.document["_id"], "version": write.version}
            operations["update"][name].append({"q": guard, "u": write.document})
        # Several works may require the same version of a document.
        elif (name, write.id, write.version) not in required:
            required.add((name, write.id, write.version))
            # A read in a transaction conflicts with nothing. Only a write makes a concurrent change of the document
            # fail, hence the counter, which nothing reads.
            guard = {"_id": write.id, "version": write.version}
            operations["update"][name].append({"q": guard, "u": {"$inc": {"holds": 1}}})
    return [BulkWrite(kind, collections[name], bulk) for kind in _FIELDS for name, bulk in operations[kind].items()]


async def execute(bulks: Iterable[BulkWrite], session: AsyncClientSession) -> None:
    """Execute bulk writes, in their order, in the session's transaction, which has no command yet.

    The commands are unordered, because MongoDB executes an ordered one operation by operation. All are sent before the
    first reply is read. MongoDB executes those of a connection one after another, and none after one that failed: the
    transaction is over then. So the first failure is the cause.

    Raises:
        VersionConflict: a document does not have the version that was read.
        BulkWriteError: a unique index rejected an insert.
        DocumentTooLarge, InvalidDocument: a document can't be stored; nothing was sent.
    """
    commands = [(bulk, start, encoded) for bulk in bulks for start, encoded in _commands(bulk)]
    client = session.client
    # pymongo has no public method for it. Its own methods set the time limit in the same way.
    with pymongo.timeout(client.options.timeout):
        async with await client._conn_for_writes(session, "bulkWrite") as connection:  # noqa: SLF001
            # Each runs until it waits for its reply, in this order, before a reply is read.
            replies = await asyncio.gather(
                *(
                    connection.command(
                        bulk.collection.database.name,
                        {bulk.kind: bulk.collection.name, _FIELDS[bulk.kind]: encoded, "ordered": False},
                        codec_options=bulk.collection.codec_options,
                        session=session,
                        client=client,
                    )
                    for bulk, _, encoded in commands
                ),
                return_exceptions=True,
            )
            for (bulk, start, encoded), reply in zip(commands, replies, strict=True):
                if isinstance(reply, BaseException):
                    raise reply
                if errors := reply.get("writeErrors"):
                    failed = [{**error, "op": bulk.operations[start + error["index"]]} for error in errors]
                    raise BulkWriteError({**reply, "writeErrors": failed})
                if reply["n"] != len(encoded):
                    raise VersionConflict


def _commands(bulk: BulkWrite) -> Iterator[tuple[int, list[RawBSONDocument]]]:
    """Yield the operations of each command, encoded, with the position of its first one."""
    start, size = 0, 0
    command: list[RawBSONDocument] = []
    for position, operation in enumerate(bulk.operations):
        encoded = bson.encode(operation, codec_options=bulk.collection.codec_options)
        if len(encoded) > MAX_OPERATION_BYTES:
            raise DocumentTooLarge(f"{bulk.kind} of {len(encoded)} bytes in {bulk.collection.name}")
        if command and size + len(encoded) > MAX_COMMAND_BYTES:
            yield start, command
            start, size, command = position, 0, []
        size += len(encoded)
        command.append(RawBSONDocument(encoded))
    if command:
        yield start, command
