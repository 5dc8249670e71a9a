"""Stores of exports and erasures, and the list of everything that auth stores about a user.

Users of the owners' applications are personal data of those owners, and are not included.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.auth.audit.store import AuditEntries
from services.auth.entitlements.store import EntitlementRows
from services.auth.magic_links.store import Authorizations
from services.auth.personal_data.models import UserProcess
from services.auth.phone.store import PhoneCodes
from services.auth.tokens.store import AccessTokens, RefreshTokens
from services.auth.users.store import Identifiers, Users
from shared.bus.work import Work
from shared.documents import Rows
from shared.indexes import expiry_index
from shared.messages.auth.errors import UserProcessNotFound
from shared.messages.personal_data import AddExportedPart
from shared.mongo import Collection, Database, Document
from shared.personal_data.subjects import DataSubject, PersonalDataCollection

MAX_PART_RETENTION: Final = timedelta(days=60)
"""Counted from the request; an export that takes longer loses its first parts."""
USER_CALLERS: Final = ["anonymous", "user"]
"""Kinds of callers whose IP address is the user's, and not an operator's or a service's."""


class UserProcesses(Rows[UserProcess], missing=UserProcessNotFound):
    """The collection ``user_processes``: exports and erasures."""

    COLLECTION: Final = "user_processes"
    INDEXES: Final = (
        IndexModel([("userId", ASCENDING)]),
        expiry_index("expiresAt"),
    )

    async def find_erasure(self, user_id: str) -> UserProcess | None:
        """The erasure of a user, if one was requested."""
        return await self._one({"userId": {"$eq": user_id}, "kind": "erasure"})


class UserExportParts:
    """The collection ``user_export_parts``: documents that services have handed over, sealed for auth."""

    COLLECTION: Final = "user_export_parts"
    INDEXES: Final = (
        IndexModel([("userId", ASCENDING)]),
        IndexModel([("processId", ASCENDING), ("service", ASCENDING), ("number", ASCENDING)]),
        expiry_index("expiresAt"),
    )

    def __init__(self, database: Database) -> None:
        self._collection: Collection = database[self.COLLECTION]

    def add(self, part: AddExportedPart, process: UserProcess, ciphertext: str, work: Work) -> None:
        """Insert a part of an export."""
        document = {
            "_id": f"{process.id}/{part.holder}/{part.run}/{part.number}",
            "processId": process.id,
            "userId": process.user_id,
            "service": part.holder,
            "run": part.run,
            "number": part.number,
            "collection": part.collection,
            "documents": ciphertext,
            "expiresAt": process.requested_at + MAX_PART_RETENTION,
            "version": 1,
        }
        work.insert(self._collection, document)

    async def of_process(self, process: UserProcess, *, skip: int, limit: int) -> list[Document]:
        """Some parts of an export, in order."""
        runs = [{"service": service, "run": run} for service, run in process.runs_done.items()]
        found = self._collection.find({"processId": process.id, "$or": runs})
        return await found.sort([("service", ASCENDING), ("number", ASCENDING)]).skip(skip).limit(limit).to_list()


class PersonalData:
    """Everything that auth stores about a user, by collection.

    Attributes:
        exported: everything that an export contains; hashes of keys are left out.
        pending_logins: magic links and texted codes, with which the user could still log in.
        erased: everything that an erasure deletes, except sessions, which have to be ended, and rate limits.
    """

    def __init__(self, database: Database) -> None:
        identity = [
            PersonalDataCollection(database[Users.COLLECTION], lambda subject: {"_id": {"$eq": subject.user_id}}),
            PersonalDataCollection(database[Identifiers.COLLECTION], _by_user),
            PersonalDataCollection(
                database[EntitlementRows.COLLECTION], lambda subject: {"_id": {"$eq": subject.user_id}}
            ),
        ]
        logins = [
            PersonalDataCollection(
                database[Authorizations.COLLECTION],
                lambda subject: {"identifierValue": {"$in": list(subject.emails)}},
                excluded=frozenset({"key", "typedCode"}),
            ),
            PersonalDataCollection(
                database[PhoneCodes.COLLECTION],
                lambda subject: {"phoneNumber": {"$in": list(subject.phones)}},
                excluded=frozenset({"nonce", "code"}),
            ),
        ]
        sessions = [
            PersonalDataCollection(database[AccessTokens.COLLECTION], _by_user),
            PersonalDataCollection(
                database[RefreshTokens.COLLECTION],
                _by_user,
                excluded=frozenset({"key", "previousKey", "chainKey", "successor", "sealedReply"}),
            ),
        ]
        # Entries stay, including those about operators, but IP addresses of the user are deleted. The IDs in them no
        # longer lead to a subject.
        audit = PersonalDataCollection(
            database[AuditEntries.COLLECTION],
            _by_user,
            to_export=_without_operators_ip,
            redact=_without_ip,
            erasure_query=lambda subject: {
                **_by_user(subject),
                "clientIp": {"$type": "string"},
                "caller": {"$in": USER_CALLERS},
            },
        )
        self._audit = audit.collection
        self.pending_logins = tuple(logins)
        self.exported = (*identity, *logins, *sessions, audit)
        exports = [
            # The process first, so that no more parts are added to it.
            PersonalDataCollection(
                database[UserProcesses.COLLECTION], lambda subject: {**_by_user(subject), "kind": "export"}
            ),
            PersonalDataCollection(database[UserExportParts.COLLECTION], _by_user),
        ]
        self.erased = (*identity, *logins, audit, *exports)

    async def login_ids(self, subject: DataSubject) -> list[str]:
        """IDs under which the audit names the logins of a person: completed and pending ones."""
        ids: list[str] = await self._audit.distinct("sessionId", {**_by_user(subject), "sessionId": {"$gt": ""}})
        for source in self.pending_logins:
            ids += [found["_id"] async for found in source.collection.find(source.query(subject), {"_id": 1})]
        return ids

    def audit_before_login(self, login_ids: Sequence[str]) -> PersonalDataCollection:
        """Audit entries of a person's logins from before the user was known, for an erasure beside ``erased``.

        Read ``login_ids`` before the pending logins are deleted.
        """

        def query(subject: DataSubject) -> Document:
            about = {"sessionId": {"$in": list(login_ids)}, "userId": {"$ne": subject.user_id}}
            return {**about, "clientIp": {"$type": "string"}, "caller": {"$in": USER_CALLERS}}

        return PersonalDataCollection(self._audit, query, redact=_without_ip)


def _by_user(subject: DataSubject) -> Document:
    return {"userId": {"$eq": subject.user_id}}


def _without_ip(entry: Document) -> Document:
    return {**entry, "clientIp": None}


def _without_operators_ip(entry: Document) -> Document:
    """An audit entry as the user may see it: an operator's IP address is left out."""
    return entry if entry["caller"] in USER_CALLERS else {**entry, "clientIp": None}
