"""MongoDB stores of webhook endpoints and of the deliveries to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, get_args

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.mailer.webhooks.models import Endpoint, WebhookDelivery
from shared.documents import Rows
from shared.indexes import expiry_index
from shared.messages.mailer.errors import WebhookEndpointNotFound
from shared.messages.mailer.webhook_events import EVENT_TYPES, TEST
from shared.messages.mailer.webhooks import DeliveryState, ListWebhookDeliveries, WebhookSelection
from shared.mongo import Document
from shared.paging import NewestFirst, OldestFirst, with_all_values

MAX_LISTED: Final = 1_000
MAX_PENDING_COUNTED: Final = 1_000
MAX_REPLAYED_COUNTED: Final = 100_000
_FEW: Final = frozenset({"eventId", "userId"})
"""Fields of whose values each has so few deliveries that they are filtered as they are read."""
_VALUES: Final = {"type": (*EVENT_TYPES, TEST), "state": get_args(DeliveryState)}


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
    _BY_EVENT: Final = _ORDER.index("eventId", scattered=True)
    _BY_USER: Final = _ORDER.index("userId", scattered=True)
    _BY_TYPE: Final = _ORDER.index(*_VALUES)
    _BY_ENDPOINT: Final = _ORDER.index("endpointId", *_VALUES)
    INDEXES: Final = (
        IndexModel([("endpointId", ASCENDING), ("subject", ASCENDING), ("position", ASCENDING)], unique=True),
        # Finds what is pending: of a subject, and of the whole endpoint by subject.
        IndexModel([("endpointId", ASCENDING), ("state", ASCENDING), ("subject", ASCENDING), ("position", ASCENDING)]),
        IndexModel([("endpointId", ASCENDING), ("deliveredAt", DESCENDING)]),
        _ORDER.index(),
        _BY_EVENT,
        _BY_USER,
        _BY_TYPE,
        _BY_ENDPOINT,
    )
    FORMER_INDEXES: Final = tuple(f"{field}_1_createdAt_-1__id_-1" for field in ("endpointId", "type", "state"))

    @staticmethod
    def expiry(retention: timedelta) -> IndexModel:
        """The TTL index; counts from the last change, so a delivery that is still retried does not expire."""
        return expiry_index("updatedAt", retention)

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
        self, endpoint_id: str, selection: WebhookSelection, *, before: datetime, cursor: str | None, limit: int
    ) -> list[WebhookDelivery]:
        """Return the next selected deliveries of an endpoint that were added before a time, oldest first.

        ``cursor`` is ``cursor_of`` the last one of the call before.

        Raises:
            InvalidCursor: no call ended with this cursor.
        """
        query = _selection(endpoint_id, selection)
        found = await OldestFirst("createdAt").page(
            self._collection,
            query,
            limit=limit - 1,
            cursor=cursor,
            since=selection.since,
            until=_until(selection, before),
            index=self._index(query),
        )
        return list(map(self._read, found))

    async def count_selected(self, endpoint_id: str, selection: WebhookSelection, *, before: datetime) -> int:
        """Return the number of selected deliveries, up to ``MAX_REPLAYED_COUNTED``."""
        query = _selection(endpoint_id, selection)
        query["createdAt"] = {"$lt": _until(selection, before)}
        if selection.since is not None:
            query["createdAt"]["$gte"] = selection.since
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
        conditions = _conditions(filters)
        found = await self._ORDER.page(
            self._collection,
            conditions,
            limit=query.limit,
            cursor=query.cursor,
            since=query.since,
            until=query.until,
            index=self._index(conditions),
        )
        return list(map(self._read, found))

    def _index(self, conditions: Document) -> IndexModel | None:
        by_field = {
            "eventId": self._BY_EVENT,
            "userId": self._BY_USER,
            "endpointId": self._BY_ENDPOINT,
            "type": self._BY_TYPE,
        }
        return next((index for field, index in by_field.items() if field in conditions), None)


def _conditions(filters: dict[str, str | None]) -> Document:
    conditions: Document = {name: {"$eq": value} for name, value in filters.items() if value is not None}
    return with_all_values(conditions, _VALUES) if conditions and _FEW.isdisjoint(conditions) else conditions


def _selection(endpoint_id: str, selection: WebhookSelection) -> Document:
    filters = {"eventId": selection.event_id, "type": selection.type, "state": selection.state}
    return _conditions({"endpointId": endpoint_id, **filters})


def _until(selection: WebhookSelection, before: datetime) -> datetime:
    return before if selection.until is None else min(before, selection.until)


def next_position(last: int | None, *, at: datetime) -> int:
    """Return the position of a new delivery: the time in milliseconds, or the number after the last one.

    A time, so that the order continues after earlier deliveries have expired.
    """
    return max(int(at.timestamp() * 1000), (last or 0) + 1)


def subjects(deliveries: Sequence[WebhookDelivery]) -> list[str]:
    """Return the subjects of deliveries, each once."""
    return list(dict.fromkeys(delivery.subject for delivery in deliveries))
