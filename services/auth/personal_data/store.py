"""Where are exports and erasures kept? In ``user_processes``, and what is exported in ``user_export_parts``, sealed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar, Final

from pymongo import ASCENDING, IndexModel

from services.auth.audit.store import AuditEntries
from services.auth.magic_links.store import Authorizations
from services.auth.personal_data.models import UserProcess, Wait
from services.auth.phone.store import PhoneCodes
from services.auth.tokens.store import AccessTokens, RefreshTokens
from services.auth.users.store import Identifiers, Users
from shared.bus.work import Work
from shared.messages.auth.errors import UserProcessNotFound
from shared.messages.personal_data import AddExportedPart
from shared.mongo import Collection, Database, Document
from shared.personal_data.subjects import DataSubject, PersonalDataCollection

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
            UserProcessNotFound: there is none, or not any more.
        """
        process = await self.find(id)
        if process is None:
            raise UserProcessNotFound
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


PERSONS_OWN: Final = ["anonymous", "user"]
"""Callers whose address is the person's: an operator's is not, nor a service's."""


class People:
    """What is held on people.

    Attributes:
        handed_over: all of it that means anything to them; no hash of a key is shown.
        ways_in: by which they could still log in: links and codes that are on their way to them.
        removed: what an erasure removes, besides sessions, which must be ended, and the traces of limits.
    """

    def __init__(self, database: Database) -> None:
        identity = [
            PersonalDataCollection(database[Users.COLLECTION], lambda person: {"_id": {"$eq": person.user_id}}),
            PersonalDataCollection(database[Identifiers.COLLECTION], _by_user),
        ]
        logins = [
            PersonalDataCollection(
                database[Authorizations.COLLECTION],
                lambda person: {"identifierValue": {"$in": list(person.emails)}},
                excluded=frozenset({"key"}),
            ),
            PersonalDataCollection(
                database[PhoneCodes.COLLECTION],
                lambda person: {"phoneNumber": {"$in": list(person.phones)}},
                excluded=frozenset({"nonce", "code"}),
            ),
        ]
        sessions = [
            PersonalDataCollection(database[AccessTokens.COLLECTION], _by_user),
            PersonalDataCollection(
                database[RefreshTokens.COLLECTION], _by_user, excluded=frozenset({"key", "successor"})
            ),
        ]
        # What was tried and when stays, under ids that mean nothing any more; what operators read and did too.
        audit = PersonalDataCollection(
            database[AuditEntries.COLLECTION],
            _by_user,
            to_export=_without_others_addresses,
            redact=_from_nowhere,
            erasure_query=lambda person: {
                **_by_user(person),
                "clientIp": {"$type": "string"},
                "caller": {"$in": PERSONS_OWN},
            },
        )
        self._entries = audit.collection
        self.ways_in = tuple(logins)
        self.handed_over = (*identity, *logins, *sessions, audit)
        exports = [
            # First the process, so that nothing more is added to it.
            PersonalDataCollection(
                database[UserProcesses.COLLECTION], lambda person: {**_by_user(person), "kind": "export"}
            ),
            PersonalDataCollection(database[UserExportParts.COLLECTION], _by_user),
        ]
        self.removed = (*identity, *logins, audit, *exports)

    async def logins(self, person: DataSubject) -> list[str]:
        """By which ids the audit names a person's logins: those that came about, and those on their way."""
        ids: list[str] = await self._entries.distinct("sessionId", {**_by_user(person), "sessionId": {"$gt": ""}})
        for holding in self.ways_in:
            ids += [found["_id"] async for found in holding.collection.find(holding.query(person), {"_id": 1})]
        return ids

    def tried(self, logins: Sequence[str]) -> PersonalDataCollection:
        """What an erasure empties beside ``removed``: what was tried before it came to light whose login that was.

        Args:
            logins: the person's, while they can still be found.
        """

        def tried(person: DataSubject) -> Document:
            about = {"sessionId": {"$in": list(logins)}, "userId": {"$ne": person.user_id}}
            return {**about, "clientIp": {"$type": "string"}, "caller": {"$in": PERSONS_OWN}}

        return PersonalDataCollection(self._entries, tried, redact=_from_nowhere)


def _by_user(person: DataSubject) -> Document:
    return {"userId": {"$eq": person.user_id}}


def _from_nowhere(entry: Document) -> Document:
    return {**entry, "clientIp": None}


def _without_others_addresses(entry: Document) -> Document:
    """An entry as the person may see it: what an operator did, not from where."""
    return entry if entry["caller"] in PERSONS_OWN else {**entry, "clientIp": None}
