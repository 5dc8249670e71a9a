"""Store of trials, whose unique indexes allow each user, each device and each person one trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.trials.models import Trial, TrialDevice
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.documents import Rows, without_blank_texts
from shared.messages.billing.errors import TrialAlreadyUsed, TrialNotFound
from shared.mongo import Database, Document

_STRING: Final = {"$type": "string"}


class Trials(Rows[Trial], taken=TrialAlreadyUsed, missing=TrialNotFound):
    """The collection ``trials``.

    ``add`` is refused with TrialAlreadyUsed if the user, the fingerprint, the installation or the person already has a
    trial. The unique indexes decide this, so of several trials started at the same moment one is added.
    """

    COLLECTION: Final = "trials"
    INDEXES: Final = (
        IndexModel([("userId", ASCENDING)], unique=True),
        IndexModel([("stpSubscriptionId", ASCENDING)]),
        # Partial: devices that report no fingerprint or installation do not exclude one another.
        IndexModel(
            [("device.fingerprint", ASCENDING)], unique=True, partialFilterExpression={"device.fingerprint": _STRING}
        ),
        IndexModel([("device.beakId", ASCENDING)], unique=True, partialFilterExpression={"device.beakId": _STRING}),
        IndexModel([("person", ASCENDING)], unique=True, partialFilterExpression={"person": _STRING}),
        # Not unique: the trial of a second person with a card is recorded too, and ended.
        IndexModel([("card", ASCENDING)], partialFilterExpression={"card": _STRING}),
    )

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._by_user = BatchLoader(self._collection, "userId")

    def add_redeemed(self, trial: Trial, work: Work) -> None:
        """Insert a new trial; if a unique index rejects it, the handler runs again and finds the other trial."""
        work.insert(self._collection, self._document(trial))

    async def find_by_user(self, user_id: str) -> Trial | None:
        """The trial of a user, who has one at most."""
        return self._read_or_none(await self._by_user.find_one(user_id))

    async def of_device(self, device: TrialDevice) -> list[Trial]:
        """The trials of a device: one at most for its fingerprint, and one for its installation."""
        named = {"device.fingerprint": device.fingerprint, "device.beakId": device.beak_id}
        # The type is that of the partial indexes; without it MongoDB could not use them.
        conditions = [{name: {"$eq": value, **_STRING}} for name, value in named.items() if value is not None]
        return await self._all(self._collection.find({"$or": conditions})) if conditions else []

    async def of_person(self, hashes: Sequence[str]) -> list[Trial]:
        """The trials of a person, whose hashes under all keys are given."""
        return await self._all(self._collection.find({"person": {"$in": list(hashes), **_STRING}}))

    async def of_card(self, hashes: Sequence[str]) -> list[Trial]:
        """The trials that began with a card, whose hashes under all keys are given."""
        return await self._all(self._collection.find({"card": {"$in": list(hashes), **_STRING}}))

    def _upgraded(self, document: Document) -> Document:
        # Empty values in older documents belong to no device.
        return without_blank_texts(document, "device")
