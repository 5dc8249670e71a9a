"""Bulk writes: the writes of many works as few MongoDB commands, one per kind of write and collection.

The commands are built here, because ``insert_many`` and ``bulk_write`` of pymongo cost a sixth more CPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError

from shared.bus.work import Delete, Insert, Replace, RequireVersion, Write
from shared.mongo import Collection, Document

MAX_COMMAND_BYTES: Final = 15 * 1024 * 1024
"""Size of the operations in one command; pymongo refuses a command over 16 MiB. A larger operation is sent alone."""
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


async def write_all(writes: Iterable[Write], session: AsyncClientSession) -> None:
    """Execute writes in the session's transaction: deletes, replaces and version checks, then inserts.

    After a failed command no further one is sent: the transaction is over, and the error of a further command would
    hide the cause.

    Raises:
        VersionConflict: a document does not have the version that was read.
        BulkWriteError: a unique index rejected an insert.
    """
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
    for kind in _FIELDS:
        for name, bulk in operations[kind].items():
            if await _execute(kind, collections[name], bulk, session) != len(bulk):
                raise VersionConflict


async def insert(collection: Collection, documents: Sequence[Document], session: AsyncClientSession) -> None:
    """Insert documents in the session's transaction; raise BulkWriteError if a unique index rejects one."""
    await _execute("insert", collection, documents, session)


async def put(collection: Collection, documents: Sequence[Document], session: AsyncClientSession) -> None:
    """Insert documents in the session's transaction, each in place of the one that has its ID."""
    updates = [{"q": {"_id": document["_id"]}, "u": document, "upsert": True} for document in documents]
    await _execute("update", collection, updates, session)


async def _execute(
    kind: str, collection: Collection, operations: Sequence[Document], session: AsyncClientSession
) -> int:
    """Execute operations of one kind; return how many documents they inserted, matched or deleted.

    The commands are unordered, because MongoDB executes an ordered one operation by operation.
    """
    count = 0
    for start, encoded in _commands(operations, collection):
        command = {kind: collection.name, _FIELDS[kind]: encoded, "ordered": False}
        reply = await collection.database.command(command, codec_options=collection.codec_options, session=session)
        if errors := reply.get("writeErrors"):
            failed = [{**error, "op": operations[start + error["index"]]} for error in errors]
            raise BulkWriteError({**reply, "writeErrors": failed})
        count += reply["n"]
    return count


def _commands(operations: Sequence[Document], collection: Collection) -> Iterator[tuple[int, list[RawBSONDocument]]]:
    """Yield the operations of each command, encoded, with the position of its first one."""
    start, size = 0, 0
    command: list[RawBSONDocument] = []
    for position, operation in enumerate(operations):
        encoded = bson.encode(operation, codec_options=collection.codec_options)
        if command and size + len(encoded) > MAX_COMMAND_BYTES:
            yield start, command
            start, size, command = position, 0, []
        size += len(encoded)
        command.append(RawBSONDocument(encoded))
    if command:
        yield start, command
