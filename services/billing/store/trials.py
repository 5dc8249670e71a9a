"""How are trials kept, so that nobody has two?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.models.trials import Trial
from shared.documents import Rows
from shared.messages.billing.errors import TrialAlreadyUsed, TrialNotFound
from shared.mongo import Database

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
