"""How are trials kept, so that nobody has two?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.errors import TrialAlreadyUsed, TrialNotFound
from services.billing.models.trials import Trial, TrialDevice
from services.billing.store.documents import entity_of
from services.billing.store.rows import Rows
from shared.mongo import Database, Document

_STRING: Final = {"$type": "string"}
INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "trials": [
        IndexModel([("userId", ASCENDING)], unique=True),
        IndexModel([("stpSubscriptionId", ASCENDING)]),
        # Partial: any number of trials may come from devices that say nothing about themselves.
        IndexModel(
            [("device.fingerprint", ASCENDING)], unique=True, partialFilterExpression={"device.fingerprint": _STRING}
        ),
        IndexModel([("device.beakId", ASCENDING)], unique=True, partialFilterExpression={"device.beakId": _STRING}),
    ]
}
"""All three judge who was first, whatever arrives at once."""


class Trials(Rows[Trial]):
    """The collection ``trials``; a new one is refused if the user, the fingerprint or the installation has one."""

    def __init__(self, database: Database) -> None:
        super().__init__(database["trials"], Trial, taken=TrialAlreadyUsed)

    async def get(self, trial_id: str) -> Trial:
        """A trial; TrialNotFound if there is none."""
        trial = await self.find(trial_id)
        if trial is None:
            raise TrialNotFound
        return trial

    async def find(self, trial_id: str) -> Trial | None:
        """A trial, if there is one."""
        return await self._one({"_id": {"$eq": trial_id}})

    async def find_by_user(self, user_id: str) -> Trial | None:
        """The one trial of a user."""
        return await self._one({"userId": {"$eq": user_id}})

    def _read(self, document: Document) -> Trial:
        return trial_of(document)

    def _written(self, entity: Trial) -> Document:
        device = {"beakId": entity.device.beak_id, "fingerprint": entity.device.fingerprint}
        return {**super()._written(entity), "device": device}


def trial_of(document: Document) -> Trial:
    """The trial that a document was made of."""
    device = TrialDevice(beak_id=document["device"]["beakId"], fingerprint=document["device"]["fingerprint"])
    return entity_of(Trial, {**document, "device": device})
