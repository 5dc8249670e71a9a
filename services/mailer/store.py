"""How are deliveries and marketing consents kept in MongoDB?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.mailer.errors import AwaitingConsent
from services.mailer.models import Consent, Delivery
from shared.mongo import Database, Document
from shared.work import Work

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "deliveries": [IndexModel([("orderId", ASCENDING)], unique=True)],
    "marketing_consents": [IndexModel([("userId", ASCENDING)], unique=True)],
}


class Deliveries:
    """The collection ``deliveries``."""

    def __init__(self, database: Database) -> None:
        self._collection = database["deliveries"]

    async def find(self, order_id: str) -> Delivery | None:
        """The delivery of an order, if it was tried before."""
        document = await self._collection.find_one({"orderId": {"$eq": order_id}})
        return None if document is None else _delivery(document)

    def add(self, delivery: Delivery, work: Work) -> None:
        """Insert a delivery; if its order has one already, the handler runs again."""
        work.insert(self._collection, _delivery_document(delivery))

    def save(self, delivery: Delivery, work: Work) -> None:
        """Replace a delivery; if it moved meanwhile, the handler runs again."""
        work.replace(self._collection, _delivery_document(delivery), version=delivery.version)


class Consents:
    """The collection ``marketing_consents``, a row for each user."""

    def __init__(self, database: Database) -> None:
        self._collection = database["marketing_consents"]

    async def get(self, user_id: str) -> Consent:
        """A user's consent.

        Raises:
            AwaitingConsent: they have never said.
        """
        consent = await self.find(user_id)
        if consent is None:
            raise AwaitingConsent
        return consent

    async def find(self, user_id: str) -> Consent | None:
        """A user's consent, if they have ever said."""
        document = await self._collection.find_one({"userId": {"$eq": user_id}})
        return None if document is None else _consent(document)

    def add(self, consent: Consent, work: Work) -> None:
        """Insert a user's first choice; if another one came first, the handler runs again."""
        work.insert(self._collection, _consent_document(consent))

    def save(self, consent: Consent, work: Work) -> None:
        """Replace a consent; if it moved meanwhile, the handler runs again."""
        work.replace(self._collection, _consent_document(consent), version=consent.version)


def _delivery_document(delivery: Delivery) -> Document:
    return {
        "_id": delivery.id,
        "channel": delivery.channel,
        "orderId": delivery.order_id,
        "state": delivery.state,
        "template": delivery.template,
        "clientId": delivery.client_id,
        "recipient": delivery.recipient,
        "recipientHash": delivery.recipient_hash,
        "messageId": delivery.message_id,
        "attempts": delivery.attempts,
        "reason": delivery.reason,
        "createdAt": delivery.created_at,
        "updatedAt": delivery.updated_at,
        "version": delivery.version,
    }


def _delivery(document: Document) -> Delivery:
    return Delivery(
        id=document["_id"],
        # Before there were texts, all were mails.
        channel=document.get("channel", "mail"),
        order_id=document["orderId"],
        state=document["state"],
        template=document["template"],
        client_id=document["clientId"],
        recipient=document["recipient"],
        recipient_hash=document["recipientHash"],
        message_id=document["messageId"],
        attempts=document["attempts"],
        reason=document["reason"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        version=document["version"],
    )


def _consent_document(consent: Consent) -> Document:
    return {
        "_id": consent.id,
        "userId": consent.user_id,
        "level": consent.level,
        "source": consent.source,
        "createdAt": consent.created_at,
        "updatedAt": consent.updated_at,
        "version": consent.version,
    }


def _consent(document: Document) -> Consent:
    return Consent(
        id=document["_id"],
        user_id=document["userId"],
        level=document["level"],
        source=document["source"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        version=document["version"],
    )
