"""Store of the signing keys."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from pymongo.errors import DuplicateKeyError

from services.auth.signing_keys.models import KEY_SET_ID, KeySet
from shared.documents import Rows


class SigningKeys(Rows[KeySet]):
    """The collection ``signing_keys``: one document with all keys, their private keys sealed."""

    COLLECTION: Final = "signing_keys"
    INDEXES: Final = ()

    async def get_key_set(self) -> KeySet:
        """The key set.

        Raises:
            RuntimeError: it is missing, although each start ensures it.
        """
        key_set = await self.find(KEY_SET_ID)
        if key_set is None:
            raise RuntimeError("the signing keys are missing from the database")
        return key_set

    async def add_first(self, key_set: KeySet) -> None:
        """Store the first key set, at a start and thus outside of any message.

        If another instance has stored one first, that one is kept.
        """
        with suppress(DuplicateKeyError):
            await self._collection.insert_one(self._document(key_set))

    async def reseal(self, key_set: KeySet) -> None:
        """Store newly sealed private keys, at a start and thus outside of any message.

        If the keys have changed since they were read, nothing is stored; the next start tries again.
        """
        document = {**self._document(key_set), "version": key_set.version + 1}
        await self._collection.replace_one({"_id": KEY_SET_ID, "version": key_set.version}, document)
