"""Bulk writes: the writes of many works as few MongoDB commands, one per kind of write and collection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pymongo import DeleteOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from shared.bus.work import Delete, Insert, Replace, RequireVersion, Write


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
    """Execute writes in the session's transaction: deletes, replaces, version checks, then inserts.

    The bulks are unordered, because MongoDB splits an ordered one at each change of the operation type. After a failed
    command no further one is sent: the transaction is over, and the error of a further command would hide the cause.

    Raises:
        VersionConflict: a document does not have the version that was read.
        BulkWriteError: a unique index rejected an insert.
    """
    by_kind: dict[type[Write], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for write in writes:
        by_kind[type(write)][write.collection.name].append(write)
    for kind, operation in ((Delete, _delete), (Replace, _replace), (RequireVersion, _require)):
        for bulk in by_kind[kind].values():
            # Several works may require the same version of a document.
            distinct = {(each.id, each.version): each for each in bulk}.values() if kind is RequireVersion else bulk
            operations = [operation(write) for write in distinct]
            result = await bulk[0].collection.bulk_write(operations, ordered=False, session=session)
            if result.deleted_count + result.matched_count != len(operations):
                raise VersionConflict
    for inserts in by_kind[Insert].values():
        documents = [insert.document for insert in inserts]
        await inserts[0].collection.insert_many(documents, ordered=False, session=session)


def _delete(write: Delete) -> DeleteOne:
    return DeleteOne({"_id": write.id, "version": write.version})


def _replace(write: Replace) -> ReplaceOne[Any]:
    return ReplaceOne({"_id": write.document["_id"], "version": write.version}, write.document)


def _require(write: RequireVersion) -> UpdateOne:
    # A read in a transaction conflicts with nothing. Only a write makes a concurrent change of the document fail, hence
    # the counter, which nothing reads.
    return UpdateOne({"_id": write.id, "version": write.version}, {"$inc": {"holds": 1}})
