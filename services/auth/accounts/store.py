"""Stores of owners and their applications."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final
from uuid import UUID

from pymongo import ASCENDING, IndexModel

from services.auth.accounts import api_keys
from services.auth.accounts.api_key_upgrade import KEY_PURPOSE, key_hash_of, upgrade_application
from services.auth.accounts.models import Application, Owner, upgraded_id
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.documents import Rows
from shared.messages.auth.errors import ApplicationNotFound, AppnameTaken, EmailTaken, OwnerNotFound
from shared.mongo import Database
from shared.sealing import Sealer
from shared.telemetry import log


class Owners(Rows[Owner], taken=EmailTaken, missing=OwnerNotFound):
    """The collection ``owners``; a unique index on the address refuses a second owner with ``EmailTaken``.

    If another owner gets a changed address first, the handler runs again and finds that owner.
    """

    COLLECTION: Final = "owners"
    INDEXES: Final = (IndexModel([("email", ASCENDING)], unique=True),)

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._by_email = BatchLoader(self._collection, "email")

    async def find_by_email(self, email: str) -> Owner | None:
        """The owner with this address in normal form, if there is one."""
        return self._read_or_none(await self._by_email.find_one(email))


class Applications(Rows[Application], taken=AppnameTaken):
    """The collection ``applications``; a unique index refuses a second name of one owner with ``AppnameTaken``.

    API keys are stored as keyed hashes, and found under every sealing key that is held.
    """

    COLLECTION: Final = "applications"
    INDEXES: Final = (
        IndexModel([("ownerId", ASCENDING), ("name", ASCENDING)], unique=True),
        IndexModel([("keyHash", ASCENDING)]),
    )

    def __init__(self, database: Database, sealer: Sealer) -> None:
        super().__init__(database)
        self._database = database
        self._sealer = sealer
        self._by_key_hash = BatchLoader(self._collection, "keyHash")

    def key_hash(self, key_id: UUID) -> str:
        """Keyed hash of the API key with this UUID, as it is stored."""
        return key_hash_of(self._sealer, key_id)

    async def get_by_key(self, api_key: str) -> Application:
        """The application with this API key.

        Raises:
            MalformedApiKey: no application can have it; MongoDB is not queried.
            ApplicationNotFound: no application has it.
        """
        application = await self.find_by_key(api_key)
        if application is None:
            raise ApplicationNotFound
        return application

    async def find_by_key(self, api_key: str) -> Application | None:
        """The application with this API key, if there is one.

        Raises:
            MalformedApiKey: no application can have it; MongoDB is not queried.
        """
        key_id = api_keys.id_of(api_key)
        hashes = self._sealer.keyed_hashes(KEY_PURPOSE, key_id.bytes)
        document = await self._by_key_hash.find_first(*hashes)
        if document is None:
            former = await self._by_id.find_one(str(key_id))
            if former is None or "keyHash" in former:
                return None
            # An instance of an earlier release, which still runs, created it after this one had started.
            await upgrade_application(self._database, former, self.key_hash(key_id))
            document = await self._by_key_hash.find_first(*hashes)
        return self._read_or_none(document)

    async def find_by_audience(self, audience: str) -> Application | None:
        """The application whose users have tokens with this ``aud``, if there is one.

        In tokens of earlier releases, which expire within a day, it is the UUID of the API key.
        """
        found = self._by_id.find_first(audience, upgraded_id(audience))
        return self._read_or_none(await found)

    async def report_lost_keys(self) -> None:
        """Log an error if keys can't be found any more, because the sealing key of their hashes is not held."""
        held = "|".join(map(re.escape, self._sealer.hash_keys(KEY_PURPOSE)))
        lost = {"keyHash": {"$type": "string", "$not": re.compile(rf"^(?:{held})\.")}}
        if count := await self._collection.count_documents(lost):
            log.error("API keys not found: the sealing key of their hashes is missing", count=count)

    def renew_key_hash(self, application: Application, api_key: str, work: Work) -> bool:
        """Save the hash of the key under the first sealing key, if it is under another one; return whether it was.

        So an application that is in use outlives the removal of an old sealing key.
        """
        if self._sealer.is_current(application.key_hash):
            return False
        self.save(replace(application, key_hash=self.key_hash(api_keys.id_of(api_key))), work)
        return True

    async def some_of_owner(self, owner_id: str, *, limit: int) -> list[Application]:
        """Up to ``limit`` applications of an owner."""
        return await self._all(self._collection.find({"ownerId": {"$eq": owner_id}}).limit(limit))
