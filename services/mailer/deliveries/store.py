"""MongoDB store of deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, get_args

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.mailer.deliveries.models import Delivery
from shared.batch_loader import BatchLoader
from shared.documents import Rows
from shared.indexes import expiry_index
from shared.messages.mailer.deliveries import DeliveryState, ListDeliveries, Medium
from shared.messages.mailer.mails import LastLogin, Template
from shared.messages.mailer.texts import TextTemplate
from shared.mongo import Database, Document
from shared.paging import NewestFirst, with_all_values

LAST_BRANDED: Final = 20
"""Deliveries among which the one that was redeemed last is searched."""
_TEMPLATES: Final[dict[Medium | None, tuple[str, ...]]] = {
    None: (*get_args(Template), *get_args(TextTemplate)),
    "mail": get_args(Template),
    "text": get_args(TextTemplate),
}
"""Templates of each medium. None is for both."""


class Deliveries(Rows[Delivery]):
    """The collection ``deliveries``: one document per ordered mail or text."""

    COLLECTION: Final = "deliveries"
    _ORDER: Final = NewestFirst("createdAt")
    _BY_RECIPIENT: Final = _ORDER.index("recipientHash", scattered=True)
    _BY_TEMPLATE: Final = _ORDER.index("template", "state")
    _BY_CLIENT: Final = _ORDER.index("clientId", "template", "state")
    INDEXES: Final = (
        IndexModel([("orderId", ASCENDING)], unique=True),
        _ORDER.index(),
        _BY_RECIPIENT,
        # A medium is found by its templates.
        _BY_TEMPLATE,
        _BY_CLIENT,
        # Partial, since most mail servers keep the Message-ID.
        IndexModel([("providerId", ASCENDING)], partialFilterExpression={"providerId": {"$type": "string"}}),
    )
    FORMER_INDEXES: Final = tuple(
        f"{field}_1_createdAt_-1__id_-1" for field in ("channel", "state", "template", "clientId")
    )

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._by_order = BatchLoader(self._collection, "orderId")

    @staticmethod
    def expiry(retention: timedelta) -> IndexModel:
        """The TTL index; a changed retention takes effect at the next start, for old deliveries too.

        It counts from the last change, so a delivery that is still retried never expires.
        """
        return expiry_index("updatedAt", retention)

    async def find(self, order_id: str) -> Delivery | None:
        """Return the delivery of an order, or None if the order has not been attempted."""
        return self._read_or_none(await self._by_order.find_one(order_id))

    async def find_by_provider_id(self, provider_id: str) -> Delivery | None:
        """Return the mail that a mail server accepted under this ID, or None."""
        return await self._one({"providerId": {"$eq": provider_id, "$type": "string"}})

    async def find_last_branded(self, recipient_hash: str, login: LastLogin | None) -> Delivery | None:
        """Return the delivery to a recipient whose client and language later mails take over, or None.

        It is the newest, or the link of the recipient's last login: links are redeemed within minutes, in any order.
        """
        found = self._collection.find(
            {"recipientHash": {"$eq": recipient_hash}, "clientId": {"$type": "string"}, "branded": {"$ne": False}},
            sort=[("createdAt", DESCENDING)],
            limit=LAST_BRANDED,
        )
        branded = await self._all(found)
        if login is not None and login.order_id is not None and login.at is not None:
            link = await self.find(login.order_id)
            if link is not None and link.client_id is not None:
                branded.append(link.redeem(at=login.at))
        return max(branded, key=lambda delivery: delivery.branded_at, default=None)

    async def list_page(self, query: ListDeliveries, recipient_hashes: Sequence[str] | None) -> list[Delivery]:
        """Return a page of deliveries, newest first, plus one more if there is a next page.

        ``recipient_hashes`` are the hashes of the recipient under every sealing key; None for all recipients.

        Raises:
            InvalidCursor: no page ended with the query's cursor.
        """
        filters = {"state": query.state, "template": query.template, "clientId": query.client_id}
        conditions: Document = {name: {"$eq": value} for name, value in filters.items() if value is not None}
        templates, index = _TEMPLATES[query.medium], None
        if query.medium is not None:
            conditions["template"] = {"$in": [each for each in templates if query.template in (None, each)]}
        if recipient_hashes is not None:
            # The deliveries to a recipient are few enough to be filtered as they are read.
            index = self._BY_RECIPIENT
            conditions["recipientHash"] = {"$in": list(recipient_hashes)}
        elif conditions:
            index = self._BY_TEMPLATE if query.client_id is None else self._BY_CLIENT
            conditions = with_all_values(conditions, {"template": templates, "state": get_args(DeliveryState)})
        found = await self._ORDER.page(
            self._collection,
            conditions,
            limit=query.limit,
            cursor=query.cursor,
            since=query.since,
            until=query.until,
            index=index,
        )
        return list(map(self._read, found))

    async def find_by_ids(self, ids: Sequence[str]) -> dict[str, Delivery]:
        """Return the deliveries with these IDs, by ID; missing ones are left out."""
        deliveries = await self._all(self._collection.find({"_id": {"$in": list(ids)}}))
        return {delivery.id: delivery for delivery in deliveries}
