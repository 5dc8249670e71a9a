"""How do the writes of many works become few commands? One for each kind of write and collection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pymongo import DeleteOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from shared.bus.work import Delete, Insert, Replace, RequireVersion, Write


class VersionConflict(Exception):
    """Another message changed what this one had read; its handler must run again."""


@dataclass(slots=True)
class Targets:
    """The documents that a work, or a group of them, touches: by the names of their collections and their ids."""

    written: set[tuple[str, Any]] = field(default_factory=set)
    held: set[tuple[str, Any]] = field(default_factory=set)

    def disturb(self, other: Targets) -> bool:
        """Whether one of the two writes what the other writes or holds. Both may hold the same."""
        return not (
            self.written.isdisjoint(other.written)
            and self.written.isdisjoint(other.held)
            and self.held.isdisjoint(other.written)
        )

    def add(self, other: Targets) -> None:
        """Touch all that the other touches."""
        self.written |= other.written
        self.held |= other.held


def targets(writes: Iterable[Write]) -> Targets:
    """What these writes touch."""
    found = Targets()
    for write in writes:
        if isinstance(write, RequireVersion):
            found.held.add((write.collection.name, write.id))
        else:
            target = write.id if isinstance(write, Delete) else write.document["_id"]
            found.written.add((write.collection.name, target))
    return found


async def write_all(writes: Iterable[Write], session: AsyncClientSession) -> None:
    """Write all of it in the session's transaction, in no order within a kind.

    A bulk that keeps the order is one command for each run of like operations. After a command that failed nothing
    more is sent, since the transaction is over and an error that says only so would hide the one that says why.

    Raises:
        VersionConflict: a document has not the version that was read.
        BulkWriteError: a unique index says no.
    """
    by_kind: dict[type[Write], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for write in writes:
        by_kind[type(write)][write.collection.name].append(write)
    for kind, send in ((Delete, _delete), (Replace, _replace), (RequireVersion, _hold), (Insert, _insert)):
        for alike in by_kind[kind].values():
            await send(alike, session)


async def _insert(inserts: list[Insert], session: AsyncClientSession) -> None:
    documents = [insert.document for insert in inserts]
    await inserts[0].collection.insert_many(documents, ordered=False, session=session)


async def _replace(replaces: list[Replace], session: AsyncClientSession) -> None:
    operations = [
        ReplaceOne({"_id": replace.document["_id"], "version": replace.version}, replace.document)
        for replace in replaces
    ]
    result = await replaces[0].collection.bulk_write(operations, ordered=False, session=session)
    if result.matched_count != len(replaces):
        raise VersionConflict


async def _hold(holds: list[RequireVersion], session: AsyncClientSession) -> None:
    # A transaction's reads are in nobody's way; a write is. So who holds writes too, into a field that nobody reads,
    # and whoever changes the document at the same time conflicts.
    held = {(hold.id, hold.version) for hold in holds}
    operations = [UpdateOne({"_id": one, "version": version}, {"$inc": {"holds": 1}}) for one, version in held]
    result = await holds[0].collection.bulk_write(operations, ordered=False, session=session)
    if result.matched_count != len(held):
        raise VersionConflict


async def _delete(deletes: list[Delete], session: AsyncClientSession) -> None:
    operations = [DeleteOne({"_id": delete.id, "version": delete.version}) for delete in deletes]
    result = await deletes[0].collection.bulk_write(operations, ordered=False, session=session)
    if result.deleted_count != len(deletes):
        raise VersionConflict
