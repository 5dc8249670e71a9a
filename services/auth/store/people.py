"""Where is all that auth holds on a person? In these collections, by fields that find it.

The users of other people's applications are those people's; nothing of Nest's own users is among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.auth.store.audit import AuditEntries
from services.auth.store.authorizations import Authorizations
from services.auth.store.chains import AccessTokens, RefreshTokens
from services.auth.store.phone_codes import PhoneCodes
from services.auth.store.user_processes import UserExportParts, UserProcesses
from services.auth.store.users import Identifiers, Users
from shared.mongo import Database, Document
from shared.personal_data.holdings import Holding, Person

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
            Holding(database[Users.COLLECTION], lambda person: {"_id": {"$eq": person.user_id}}),
            Holding(database[Identifiers.COLLECTION], _by_user),
        ]
        logins = [
            Holding(
                database[Authorizations.COLLECTION],
                lambda person: {"identifierValue": {"$in": list(person.emails)}},
                hidden=frozenset({"key"}),
            ),
            Holding(
                database[PhoneCodes.COLLECTION],
                lambda person: {"phoneNumber": {"$in": list(person.phones)}},
                hidden=frozenset({"nonce", "code"}),
            ),
        ]
        sessions = [
            Holding(database[AccessTokens.COLLECTION], _by_user),
            Holding(database[RefreshTokens.COLLECTION], _by_user, hidden=frozenset({"key", "successor"})),
        ]
        # What was tried and when stays, under ids that mean nothing any more; what operators read and did too.
        audit = Holding(
            database[AuditEntries.COLLECTION],
            _by_user,
            show=_without_others_addresses,
            erased=_from_nowhere,
            left=lambda person: {**_by_user(person), "clientIp": {"$type": "string"}, "caller": {"$in": PERSONS_OWN}},
        )
        self._entries = audit.collection
        self.ways_in = tuple(logins)
        self.handed_over = (*identity, *logins, *sessions, audit)
        exports = [
            # First the process, so that nothing more is added to it.
            Holding(database[UserProcesses.COLLECTION], lambda person: {**_by_user(person), "kind": "export"}),
            Holding(database[UserExportParts.COLLECTION], _by_user),
        ]
        self.removed = (*identity, *logins, audit, *exports)

    async def logins(self, person: Person) -> list[str]:
        """By which ids the audit names a person's logins: those that came about, and those on their way."""
        ids: list[str] = await self._entries.distinct("sessionId", {**_by_user(person), "sessionId": {"$gt": ""}})
        for holding in self.ways_in:
            ids += [found["_id"] async for found in holding.collection.find(holding.find(person), {"_id": 1})]
        return ids

    def tried(self, logins: Sequence[str]) -> Holding:
        """What an erasure empties beside ``removed``: what was tried before it came to light whose login that was.

        Args:
            logins: the person's, while they can still be found.
        """

        def tried(person: Person) -> Document:
            about = {"sessionId": {"$in": list(logins)}, "userId": {"$ne": person.user_id}}
            return {**about, "clientIp": {"$type": "string"}, "caller": {"$in": PERSONS_OWN}}

        return Holding(self._entries, tried, erased=_from_nowhere)


def _by_user(person: Person) -> Document:
    return {"userId": {"$eq": person.user_id}}


def _from_nowhere(entry: Document) -> Document:
    return {**entry, "clientIp": None}


def _without_others_addresses(entry: Document) -> Document:
    """An entry as the person may see it: what an operator did, not from where."""
    return entry if entry["caller"] in PERSONS_OWN else {**entry, "clientIp": None}
