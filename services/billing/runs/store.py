"""Stores of Stripe runs: runs, differences, known drift, the schedule, the takeover, and bulk reads of our records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection as Collection_
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.catalog.models import PriceRecord, ProductRecord
from services.billing.catalog.store import Prices, Products
from services.billing.customers.models import ProviderMapping
from services.billing.customers.store import ProviderMappings
from services.billing.disputes.models import Dispute
from services.billing.disputes.store import Disputes
from services.billing.payments.models import Payment
from services.billing.payments.store import Payments
from services.billing.runs.models import Difference, KnownDrift, Run
from services.billing.subscriptions.models import Subscription
from services.billing.subscriptions.store import Subscriptions
from services.billing.trials.models import Trial
from services.billing.trials.store import Trials
from shared.bus.work import Work
from shared.documents import Rows, entity_of
from shared.indexes import expiry_index
from shared.messages.billing.errors import StripeRunNotFound, StripeRunUnderWay
from shared.messages.billing.runs import Kind, Scheduled, Subject
from shared.mongo import Collection, Database, Document

Entity = TypeVar("Entity")
MAX_UNLISTED: Final = 10_000
"""Bound on the records returned by ``RecordReader.unlisted``. That many records missing in Stripe's list mean that the
account is probably the wrong one."""


class Runs(Rows[Run], taken=StripeRunUnderWay, missing=StripeRunNotFound):
    """The collection ``stripe_runs``; ``add`` is refused while a run of the same kind is under way."""

    COLLECTION: Final = "stripe_runs"
    _UNDER_WAY: Final = {"underWay": True}
    INDEXES: Final = (
        # One run of a kind at a time; a second one would only order the same work again.
        IndexModel([("kind", ASCENDING)], unique=True, partialFilterExpression=_UNDER_WAY),
        IndexModel([("startedAt", DESCENDING)]),
        IndexModel([("kind", ASCENDING), ("finishedAt", DESCENDING)]),
        expiry_index("expiresAt"),
    )

    async def find_under_way(self, kind: Kind) -> Run | None:
        """The run of a kind that is under way."""
        return await self._one({"kind": kind, **self._UNDER_WAY})

    async def latest(self, limit: int) -> list[Run]:
        """The latest runs of all kinds, newest first."""
        return await self._all(self._collection.find().sort([("startedAt", DESCENDING)]).limit(limit))

    async def latest_done(self, kind: Kind) -> Run | None:
        """The run of a kind that finished last."""
        done = self._collection.find({"kind": kind, "status": "done"})
        found = await self._all(done.sort([("finishedAt", DESCENDING)]).limit(1))
        return found[0] if found else None

    def _document(self, entity: Run) -> Document:
        return {**super()._document(entity), "underWay": entity.under_way}


class Differences(Rows[Difference]):
    """The collection ``stripe_differences``: for each run one document for each object that seemed to differ."""

    COLLECTION: Final = "stripe_differences"
    INDEXES: Final = (
        IndexModel([("runId", ASCENDING), ("_id", ASCENDING)]),
        IndexModel([("runId", ASCENDING), ("state", ASCENDING), ("_id", ASCENDING)]),
        expiry_index("expiresAt"),
    )

    async def page(self, run_id: str, *, after: str | None, limit: int) -> list[Difference]:
        """The next differences of a run, in the order of their IDs."""
        return await self._next({"runId": {"$eq": run_id}}, after, limit)

    async def open(self, run_id: str, *, after: str | None, limit: int) -> list[Difference]:
        """The next differences of a run that must be checked again, in the order of their IDs."""
        return await self._next({"runId": {"$eq": run_id}, "state": {"$in": ["suspected", "ordered"]}}, after, limit)

    async def known(self, ids: Iterable[str]) -> set[str]:
        """Those of these IDs that are stored."""
        found = self._collection.find({"_id": {"$in": list(ids)}}, {"_id": 1})
        return {document["_id"] async for document in found}

    async def _next(self, query: Document, after: str | None, limit: int) -> list[Difference]:
        wanted = query if after is None else {**query, "_id": {"$gt": after}}
        return await self._all(self._collection.find(wanted).sort("_id", ASCENDING).limit(limit))


class KnownDrifts(Rows[KnownDrift]):
    """The collection ``stripe_drift``: every known drift that has not been repaired, of any run."""

    COLLECTION: Final = "stripe_drift"
    INDEXES: Final = ()

    async def all(self) -> list[KnownDrift]:
        """All known drift, in no order."""
        return await self._all(self._collection.find())

    async def page(self, *, after: str | None, limit: int) -> list[KnownDrift]:
        """The next known drift, in the order of IDs."""
        found = self._collection.find({} if after is None else {"_id": {"$gt": after}})
        return await self._all(found.sort("_id", ASCENDING).limit(limit))


@dataclass(frozen=True, slots=True, kw_only=True)
class NextRun:
    """The time of the next scheduled run of a kind, which is its ID."""

    id: Scheduled
    next_at: datetime
    version: int = 1


class Schedule(Rows[NextRun]):
    """The collection ``stripe_schedule``: for each kind of run the time of the next scheduled one."""

    COLLECTION: Final = "stripe_schedule"
    INDEXES: Final = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """The time until which everything in Stripe counts as taken over."""

    id: str
    until: datetime
    version: int = 1


class Takeover(Rows[TakenOver]):
    """The collection ``stripe_takeover``: one document with the time of the last import of the Stripe account.

    Objects that existed in Stripe at that time cause no mail when they are first seen later, by the import, a webhook
    or a sweep. Objects created after that time do.
    """

    COLLECTION: Final = "stripe_takeover"
    INDEXES: Final = ()
    _ID: Final = "account"

    async def covers(self, made_at: datetime) -> bool:
        """Whether an object that Stripe created at this time was taken over."""
        takeover = await self.find(self._ID)
        return takeover is not None and made_at <= takeover.until

    async def happened(self) -> bool:
        """Whether an account was ever imported."""
        return await self.find(self._ID) is not None

    async def extend(self, until: datetime, work: Work) -> None:
        """Count everything that Stripe created until this time as taken over."""
        takeover = await self.find(self._ID)
        if takeover is None:
            self.add(TakenOver(id=self._ID, until=until), work)
        elif takeover.until < until:
            self.save(replace(takeover, until=until), work)


class RecordReader(Generic[Entity]):
    """Bulk reads of our records of one kind of Stripe object.

    ``field`` is the stored field with Stripe's ID, ``where`` a further condition on the documents.
    """

    def __init__(
        self, collection: Collection, kind: type[Entity], field: str, *, where: Document | None = None
    ) -> None:
        self._collection = collection
        self._kind = kind
        self._field = field
        self._where = where or {}

    async def find(self, stripe_id: str) -> Entity | None:
        """The record of a Stripe object."""
        return (await self.of([stripe_id])).get(stripe_id)

    async def count(self) -> int:
        """The number of records."""
        if self._where:
            return await self._collection.count_documents(self._where)
        return await self._collection.estimated_document_count()

    async def of(self, stripe_ids: Iterable[str]) -> dict[str, Entity]:
        """The records of these Stripe objects, by Stripe's ID; objects without a record are left out."""
        # The condition on the field comes last, because the other one may name the same field.
        found = self._collection.find({**self._where, self._field: {"$in": list(stripe_ids)}})
        return {document[self._field]: entity_of(self._kind, document) async for document in found}

    async def unlisted(
        self, listed: Iterable[str], *, made_from: datetime | None, made_until: datetime | None
    ) -> dict[str, str]:
        """Our IDs of records that are missing in a page of Stripe's list, by Stripe's ID; ``MAX_UNLISTED`` at most.

        The page begins and ends at the creation times ``made_from`` and ``made_until``; None is no bound.
        """
        bounds: dict[str, Any] = {}
        if made_from is not None:
            bounds["$gte"] = made_from
        if made_until is not None:
            bounds["$lte"] = made_until
        query = {**self._where, self._field: {"$nin": list(listed)}, **({"stpCreatedAt": bounds} if bounds else {})}
        found = self._collection.find(query, {self._field: 1}).sort("stpCreatedAt", DESCENDING).limit(MAX_UNLISTED)
        return {document[self._field]: document["_id"] async for document in found}

    async def of_customers(self, customer_ids: Iterable[str]) -> dict[str, str]:
        """For customers in Stripe with a record that has a user, the user of the newest such record."""
        query = {"stpCustomerId": {"$in": list(customer_ids)}, "userId": {"$ne": None}}
        found = self._collection.find(query, {"stpCustomerId": 1, "userId": 1}).sort("createdAt", ASCENDING)
        return {document["stpCustomerId"]: document["userId"] async for document in found}

    async def after(self, our_id: str | None, *, limit: int) -> list[tuple[str, str]]:
        """Our ID and Stripe's ID of the next records, in the order of our IDs."""
        query = self._where if our_id is None else {**self._where, "_id": {"$gt": our_id}}
        found = self._collection.find(query, {self._field: 1}).sort("_id", ASCENDING).limit(limit)
        return [(document["_id"], document[self._field]) async for document in found]

    async def users_with_several(
        self, statuses: Collection_[str], *, after: str | None, limit: int
    ) -> tuple[list[str], str | None]:
        """Users who have more than one record with one of these statuses, among the next records by user.

        Args:
            statuses: the statuses that count.
            after: the user that the previous call ended with; None for the first call.
            limit: records to read, more than any user has.

        Returns:
            The users, and the user that the call ended with; None if no record follows.
        """
        found = self._collection.find({"userId": {"$gt": after or ""}}, {"userId": 1, "status": 1})
        records = await found.sort("userId", ASCENDING).limit(limit).to_list()
        ended = None
        if len(records) == limit:
            # Further records of the last user may follow, unless it alone has so many.
            last = records[-1]["userId"]
            records = [each for each in records if each["userId"] != last] or records
            ended = records[-1]["userId"]
        counts = Counter(each["userId"] for each in records if each["status"] in statuses)
        return [user for user, count in counts.items() if count > 1], ended


class RecordReaders:
    """Bulk reads of our records of every kind of Stripe object."""

    def __init__(self, database: Database) -> None:
        self.customers = RecordReader(
            database[ProviderMappings.COLLECTION],
            ProviderMapping,
            "providerValue",
            where={"providerType": "stripe", "removedAt": None},
        )
        self.subscriptions = RecordReader(database[Subscriptions.COLLECTION], Subscription, "stpSubscriptionId")
        self.trials = RecordReader(
            database[Trials.COLLECTION], Trial, "stpSubscriptionId", where={"stpSubscriptionId": {"$type": "string"}}
        )
        self.payments = RecordReader(database[Payments.COLLECTION], Payment, "stpPaymentIntentId")
        self.disputes = RecordReader(database[Disputes.COLLECTION], Dispute, "stpDisputeId")
        self._of_subject: dict[Subject, RecordReader[Any]] = {
            "customer": self.customers,
            "subscription": self.subscriptions,
            "trial": self.trials,
            "payment": self.payments,
            "dispute": self.disputes,
            "product": RecordReader(database[Products.COLLECTION], ProductRecord, "_id", where={"deletedAt": None}),
            "price": RecordReader(database[Prices.COLLECTION], PriceRecord, "_id", where={"deletedAt": None}),
        }

    async def users_of_customers(self, customer_ids: Collection_[str]) -> dict[str, str]:
        """For customers in Stripe, the user of a payment, or rather of a subscription, by the customer's ID."""
        if not customer_ids:
            return {}
        return await self.payments.of_customers(customer_ids) | await self.subscriptions.of_customers(customer_ids)

    def of_subject(self, subject: Subject) -> RecordReader[Any]:
        """The records of a kind of object."""
        return self._of_subject[subject]
