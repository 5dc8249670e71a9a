"""MongoDB stores of webhook endpoints and of the deliveries to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.mailer.webhooks.models import Endpoint, WebhookDelivery
from shared.documents import Rows
from shared.messages.mailer.errors import WebhookEndpointNotFound
from shared.messages.mailer.webhooks import ListWebhookDeliveries, WebhookSelection
from shared.mongo import Document
from shared.paging import NewestFirst

MAX_LISTED: Final = 1_000
MAX_PENDING_COUNTED: Final = 1_000
MAX_REPLAYED_COUNTED: Final = 100_000


class Endpoints(Rows[Endpoint], missing=WebhookEndpointNotFound):
    """The collection ``webhook_endpoints``; few documents, read as a whole by every instance."""

    COLLECTION: Final = "webhook_endpoints"
    INDEXES: Final = (
        IndexModel([("createdAt", ASCENDING)]),
        IndexModel([("clientId", ASCENDING), ("createdAt", ASCENDING)]),
    )

    async def enabled(self) -> list[Endpoint]:
        """Return all enabled endpoints."""
        return await self._all(self._collection.find({"disabledAt": None}).limit(MAX_LISTED))

    async def of_client(self, client_id: str) -> list[Endpoint]:
        """Return the endpoints of a client, oldest first."""
        return await self._all(self._collection.find({"clientId": {"$eq": client_id}}).sort("createdAt", ASCENDING))

    async def all(self) -> list[Endpoint]:
        """Return all endpoints, oldest first."""
        return await self._all(self._collection.find().sort("createdAt", ASCENDING).limit(MAX_LISTED))

    async def count(self, client_id: str | None) -> int:
        """Return the number of a client's endpoints, or of those without a client."""
        return await self._collection.count_documents({"clientId": {"$eq": client_id}})


class WebhookDeliveries(Rows[WebhookDelivery]):
    """The collection ``webhook_deliveries``: one document per event and endpoint.

    The position is unique for each subject at an endpoint. So of two events of a user that are added at the same time,
    one is added again, behind the other.
    """

    COLLECTION: Final = "webhook_deliveries"
    _ORDER: Final = NewestFirst("createdAt")
    INDEXES: Final = (
        IndexModel([("endpointId", ASCENDING), ("subject", ASCENDING), ("position", ASCENDING)], unique=True),
        # Finds what is pending: of a subject, and of the whole endpoint by subject.
        IndexModel([("endpointId", ASCENDING), ("state", ASCENDING), ("subject", ASCENDING), ("position", ASCENDING)]),
        IndexModel([("endpointId", ASCENDING), ("deliveredAt", DESCENDING)]),
        _ORDER.index(),
        _ORDER.index("endpointId"),
        _ORDER.index("eventId"),
        _ORDER.index("userId"),
        _ORDER.index("type"),
        _ORDER.index("state"),
    )

    @staticmethod
    def expiry(retention: timedelta) -> IndexModel:
        """The TTL index; counts from the last change, so a delivery that is still retried does not expire."""
        return IndexModel([("updatedAt", ASCENDING)], expireAfterSeconds=int(retention.total_seconds()))

    async def last_position(self, endpoint_id: str, subject: str) -> int | None:
        """Return the highest position of a subject at an endpoint; None if it has no deliveries."""
        found = await self._collection.find_one(
            {"endpointId": endpoint_id, "subject": subject}, {"position": 1}, sort=[("position", DESCENDING)]
        )
        return None if found is None else int(found["position"])

    async def first_pending(self, endpoint_id: str, subject: str, *, after: int = -1) -> WebhookDelivery | None:
        """Return the pending delivery of a subject with the lowest position above ``after``, or None."""
        return await self._read_first(
            {"endpointId": endpoint_id, "state": "pending", "subject": subject, "position": {"$gt": after}}
        )

    async def first_subject(self, endpoint_id: str, *, after: str | None) -> WebhookDelivery | None:
        """Return the first pending delivery of the next subject of an endpoint, in the order of subjects, or None."""
        query: Document = {"endpointId": endpoint_id, "state": "pending"}
        return await self._read_first(query if after is None else {**query, "subject": {"$gt": after}})

    async def _read_first(self, query: Document) -> WebhookDelivery | None:
        found = await self._collection.find_one(query, sort=[("subject", ASCENDING), ("position", ASCENDING)])
        return self._read_or_none(found)

    async def count_pending(self, endpoint_id: str) -> int:
        """Return how many deliveries of an endpoint are pending, up to ``MAX_PENDING_COUNTED``."""
        return await self._collection.count_documents(
            {"endpointId": endpoint_id, "state": "pending"}, limit=MAX_PENDING_COUNTED
        )

    async def last_delivered_at(self, endpoint_id: str) -> datetime | None:
        """Return the time of the last success at an endpoint; None if there was none."""
        found = await self._collection.find_one(
            {"endpointId": endpoint_id, "deliveredAt": {"$type": "date"}},
            {"deliveredAt": 1},
            sort=[("deliveredAt", DESCENDING)],
        )
        delivered_at: datetime | None = None if found is None else found["deliveredAt"]
        return delivered_at

    async def of_endpoint(self, endpoint_id: str, limit: int) -> list[WebhookDelivery]:
        """Return some deliveries of an endpoint."""
        return await self._all(self._collection.find({"endpointId": endpoint_id}).limit(limit))

    async def selected(
        self, endpoint_id: str, selection: WebhookSelection, *, before: datetime, after: str | None, limit: int
    ) -> list[WebhookDelivery]:
        """Return the next selected deliveries of an endpoint that were added before a time, in the order of IDs."""
        query = _selection(endpoint_id, selection, before)
        if after is not None:
            query["_id"] = {"$gt": after}
        return await self._all(self._collection.find(query).sort("_id", ASCENDING).limit(limit))

    async def count_selected(self, endpoint_id: str, selection: WebhookSelection, *, before: datetime) -> int:
        """Return the number of selected deliveries, up to ``MAX_REPLAYED_COUNTED``."""
        query = _selection(endpoint_id, selection, before)
        return await self._collection.count_documents(query, limit=MAX_REPLAYED_COUNTED)

    async def list_page(self, query: ListWebhookDeliveries) -> list[WebhookDelivery]:
        """Return a page of deliveries, newest first, plus one more if there is a next page.

        Raises:
            InvalidCursor: no page ended with the query's cursor.
        """
        filters = {
            "endpointId": query.endpoint_id,
            "eventId": query.event_id,
            "userId": query.user_id,
            "type": query.type,
            "state": query.state,
        }
        found = await self._ORDER.page(
            self._collection,
            {name: {"$eq": value} for name, value in filters.items() if value is not None},
            limit=query.limit,
            cursor=query.cursor,
            since=query.since,
            until=query.until,
        )
        return list(map(self._read, found))


def _selection(endpoint_id: str, selection: WebhookSelection, before: datetime) -> Document:
    until = before if selection.until is None else min(before, selection.until)
    filters = {"eventId": selection.event_id, "type": selection.type, "state": selection.state}
    period = {"$lt": until} if selection.since is None else {"$lt": until, "$gte": selection.since}
    return {
        "endpointId": endpoint_id,
        "createdAt": period,
        **{name: {"$eq": value} for name, value in filters.items() if value is not None},
    }


def next_position(last: int | None, *, at: datetime) -> int:
    """Return the position of a new delivery: the time in milliseconds, or the number after the last one.

    A time, so that the order continues after earlier deliveries have expired.
    """
    return max(int(at.timestamp() * 1000), (last or 0) + 1)


def subjects(deliveries: Sequence[WebhookDelivery]) -> list[str]:
    """Return the subjects of deliveries, each once."""
    return list(dict.fromkeys(delivery.subject for delivery in deliveries))
