"""Where are exports and erasures kept? In ``user_processes``, and what is exported in ``user_export_parts``, sealed."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Final

from pymongo import ASCENDING, IndexModel

from services.auth.models.user_processes import UserProcess, Wait
from shared.bus.work import Work
from shared.errors import NotFound
from shared.messages.personal_data import AddExportedPart
from shared.mongo import Collection, Database, Document

LONGEST: Final = timedelta(days=60)
"""How long a part is kept at the most, however long the others took."""


class UserProcesses:
    """Exports and erasures."""

    COLLECTION: ClassVar = "user_processes"
    INDEXES: ClassVar = [
        IndexModel([("userId", ASCENDING)]),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]

    async def get(self, id: str) -> UserProcess:  # noqa: A002 -- the field's name
        """The one with this id.

        Raises:
            NotFound: there is none, or not any more.
        """
        process = await self.find(id)
        if process is None:
            raise NotFound
        return process

    async def find(self, id: str) -> UserProcess | None:  # noqa: A002 -- the field's name
        """The one with this id, if there is one."""
        document = await self._documents.find_one({"_id": {"$eq": id}})
        return None if document is None else _process(document)

    async def find_erasure(self, user_id: str) -> UserProcess | None:
        """The erasure of a user, if one was begun."""
        document = await self._documents.find_one({"userId": {"$eq": user_id}, "kind": "erasure"})
        return None if document is None else _process(document)

    def add(self, process: UserProcess, work: Work) -> None:
        """Store a new one."""
        work.insert(self._documents, _document(process))

    def save(self, process: UserProcess, work: Work) -> None:
        """Store what changed; if it moved meanwhile, the handler runs again."""
        work.replace(self._documents, _document(process), version=process.version)


class UserExportParts:
    """What services have handed over, sealed for auth."""

    COLLECTION: ClassVar = "user_export_parts"
    INDEXES: ClassVar = [
        IndexModel([("userId", ASCENDING)]),
        IndexModel([("processId", ASCENDING), ("service", ASCENDING), ("number", ASCENDING)]),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]

    def add(self, part: AddExportedPart, process: UserProcess, ciphertext: str, work: Work) -> None:
        """Store a part."""
        document = {
            "_id": f"{process.id}/{part.holder}/{part.run}/{part.number}",
            "processId": process.id,
            "userId": process.user_id,
            "service": part.holder,
            "run": part.run,
            "number": part.number,
            "collection": part.collection,
            "documents": ciphertext,
            "expiresAt": process.requested_at + LONGEST,
            "version": 1,
        }
        work.insert(self._documents, document)

    async def of(self, process: UserProcess, *, skip: int, most: int) -> list[Document]:
        """Some of an export's, in order."""
        runs = [{"service": service, "run": run} for service, run in process.runs_done.items()]
        found = self._documents.find({"processId": process.id, "$or": runs})
        return await found.sort([("service", ASCENDING), ("number", ASCENDING)]).skip(skip).limit(most).to_list()


def _process(document: Document) -> UserProcess:
    return UserProcess(
        id=document["_id"],
        kind=document["kind"],
        user_id=document["userId"],
        identifiers=document["identifiers"],
        delete_stripe_customer=document["deleteStripeCustomer"],
        run=document["run"],
        done=document["done"],
        runs_done=document["runsDone"],
        requested_by=document["requestedBy"],
        requested_at=document["requestedAt"],
        finished_at=document["finishedAt"],
        expires_at=document["expiresAt"],
        # Those that began before it was kept have none.
        waits={
            holder: Wait(outsider=wait["outsider"], since=wait["since"], reason=wait["reason"])
            for holder, wait in document.get("waits", {}).items()
        },
        version=document["version"],
    )


def _document(process: UserProcess) -> Document:
    return {
        "_id": process.id,
        "kind": process.kind,
        "userId": process.user_id,
        "identifiers": process.identifiers,
        "deleteStripeCustomer": process.delete_stripe_customer,
        "run": process.run,
        "done": dict(process.done),
        "runsDone": dict(process.runs_done),
        "requestedBy": process.requested_by,
        "requestedAt": process.requested_at,
        "finishedAt": process.finished_at,
        "expiresAt": process.expires_at,
        "waits": {
            holder: {"outsider": wait.outsider, "since": wait.since, "reason": wait.reason}
            for holder, wait in process.waits.items()
        },
        "version": process.version,
    }
