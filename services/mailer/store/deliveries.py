"""How are deliveries kept?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.mailer.models.deliveries import Delivery
from shared.bus.work import Work
from shared.messages.mailer.deliveries import ListDeliveries
from shared.mongo import Database, Document


class Deliveries:
    """The collection ``deliveries``."""

    COLLECTION: Final = "deliveries"
    INDEXES: Final = (
        IndexModel([("orderId", ASCENDING)], unique=True),
        IndexModel([("recipientHash", ASCENDING), ("createdAt", DESCENDING)]),
    )

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]

    async def find(self, order_id: str) -> Delivery | None:
        """The delivery of an order, if it was tried before."""
        document = await self._collection.find_one({"orderId": {"$eq": order_id}})
        return None if document is None else _delivery(document)

    async def last_through_app(self, recipient_hash: str) -> Delivery | None:
        """The newest delivery to a recipient that wore the looks of a client."""
        document = await self._collection.find_one(
            {"recipientHash": {"$eq": recipient_hash}, "clientId": {"$type": "string"}},
            sort=[("createdAt", DESCENDING)],
        )
        return None if document is None else _delivery(document)

    async def page(self, query: ListDeliveries, recipient_hashes: Sequence[str] | None) -> list[Delivery]:
        """The deliveries asked for, newest first, and one more if there are more.

        Their order is that of their ids: exact to the second, and within it that of each instance.
        """
        wanted: Document = {}
        named = (("medium", "channel"), ("state", "state"), ("template", "template"), ("client_id", "clientId"))
        for asked, kept in named:
            if (value := getattr(query, asked)) is not None:
                wanted[kept] = {"$eq": value}
        if recipient_hashes is not None:
            wanted["recipientHash"] = {"$in": list(recipient_hashes)}
        if query.cursor is not None:
            wanted["_id"] = {"$lt": query.cursor}
        if query.since is not None or query.until is not None:
            bounds = {"$gte": query.since, "$lt": query.until}
            wanted["createdAt"] = {operator: moment for operator, moment in bounds.items() if moment is not None}
        found = self._collection.find(wanted).sort("_id", DESCENDING).limit(query.limit + 1)
        return [_delivery(document) async for document in found]

    async def some(self, ids: Sequence[str]) -> dict[str, Delivery]:
        """Those of these deliveries that are kept, by their ids."""
        found = self._collection.find({"_id": {"$in": list(ids)}})
        return {document["_id"]: _delivery(document) async for document in found}

    def add(self, delivery: Delivery, work: Work) -> None:
        """Insert a delivery; if its order has one already, the handler runs again."""
        work.insert(self._collection, _delivery_document(delivery))

    def save(self, delivery: Delivery, work: Work) -> None:
        """Replace a delivery; if it moved meanwhile, the handler runs again."""
        work.replace(self._collection, _delivery_document(delivery), version=delivery.version)


def _delivery_document(delivery: Delivery) -> Document:
    return {
        "_id": delivery.id,
        "channel": delivery.channel,
        "orderId": delivery.order_id,
        "state": delivery.state,
        "template": delivery.template,
        "clientId": delivery.client_id,
        "locale": delivery.locale,
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
        # Before there were languages, all was English.
        locale=document.get("locale"),
        recipient=document["recipient"],
        recipient_hash=document["recipientHash"],
        message_id=document["messageId"],
        attempts=document["attempts"],
        reason=document["reason"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        version=document["version"],
    )
