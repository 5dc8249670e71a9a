"""Store of trials, whose unique indexes allow each user and each device one trial."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.trials.models import Trial
from shared.documents import Rows, without_blank_texts
from shared.messages.billing.errors import TrialAlreadyUsed, TrialNotFound
from shared.mongo import Document

_STRING: Final = {"$type": "string"}


class Trials(Rows[Trial], taken=TrialAlreadyUsed, missing=TrialNotFound):
    """The collection ``trials``.

    ``add`` is refused with TrialAlreadyUsed if the user, the fingerprint or the installation already has a trial. The
    unique indexes decide this, so of several trials started at the same moment one is added.
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
    )

    async def find_by_user(self, user_id: str) -> Trial | None:
        """The trial of a user, who has one at most."""
        return await self._one({"userId": {"$eq": user_id}})

    def _upgraded(self, document: Document) -> Document:
        # Empty values in older documents belong to no device.
        return without_blank_texts(document, "device")
