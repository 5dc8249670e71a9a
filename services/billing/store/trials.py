"""How are trials kept, so that nobody has two?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.errors import TrialAlreadyUsed, TrialNotFound
from services.billing.models.trials import Trial, TrialDevice
from services.billing.store.documents import document_of, entity_of
from shared.mongo import Database, Document
from shared.work import Work

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


class Trials:
    """The collection ``trials``."""

    def __init__(self, database: Database) -> None:
        self._collection = database["trials"]

    async def get(self, trial_id: str) -> Trial:
        """A trial; TrialNotFound if there is none."""
        document = await self._collection.find_one({"_id": {"$eq": trial_id}})
        if document is None:
            raise TrialNotFound
        return trial_of(document)

    async def find(self, trial_id: str) -> Trial | None:
        """A trial, if there is one."""
        document = await self._collection.find_one({"_id": {"$eq": trial_id}})
        return None if document is None else trial_of(document)

    async def find_by_user(self, user_id: str) -> Trial | None:
        """The one trial of a user."""
        document = await self._collection.find_one({"userId": {"$eq": user_id}})
        return None if document is None else trial_of(document)

    def add(self, trial: Trial, work: Work) -> None:
        """Insert; TrialAlreadyUsed if the user, the fingerprint or the installation has one."""
        work.insert(self._collection, _document(trial), taken=TrialAlreadyUsed)

    def save(self, trial: Trial, work: Work) -> None:
        """Replace, if nobody has changed it meanwhile; otherwise the handler runs again."""
        work.replace(self._collection, _document(trial), version=trial.version)

    def release(self, trial: Trial, work: Work) -> None:
        """Remove a reservation that came to nothing; its user and device may try again."""
        work.delete(self._collection, trial.id, version=trial.version)


def _document(trial: Trial) -> Document:
    device = {"beakId": trial.device.beak_id, "fingerprint": trial.device.fingerprint}
    return {**document_of(trial), "device": device}


def trial_of(document: Document) -> Trial:
    """The trial that a document was made of."""
    device = TrialDevice(beak_id=document["device"]["beakId"], fingerprint=document["device"]["fingerprint"])
    return entity_of(Trial, {**document, "device": device})
