"""Stores of payments and of the times of failed-payment mails, and the pagination of payments and disputes."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.payments.models import FailedPaymentMail, Payment
from shared.bus.work import Work
from shared.documents import Rows
from shared.errors import InvalidCursor
from shared.mongo import Collection, Document


class PageEntry(Protocol):
    """An entry of a list that is read page by page."""

    @property
    def id(self) -> str:
        """Our ID."""

    @property
    def stp_created_at(self) -> datetime:
        """When Stripe created the object, in whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """Filter and position of a page.

    Attributes:
        user_id: include only entries of this user.
        customers: Stripe IDs of the user's customers; their entries without a user are included too.
        status: include only entries with this status.
        limit: entries on the page.
        cursor: end of the previous page, made by ``cursor_of``.
    """

    user_id: str | None
    customers: list[str]
    status: str | None
    limit: int
    cursor: str | None


def cursor_of(last: PageEntry) -> str:
    """The cursor of a page, made of its last entry."""
    return urlsafe_b64encode(f"{last.stp_created_at.timestamp():.0f}.{last.id}".encode()).decode().rstrip("=")


async def newest_first(collection: Collection, query: PageQuery) -> list[Document]:
    """A page, newest in Stripe first, and one more document if another page follows; raises InvalidCursor."""
    conditions: list[Document] = []
    if query.user_id is not None:
        unattributed = {"userId": None, "stpCustomerId": {"$in": query.customers}}
        conditions.append({"$or": [{"userId": {"$eq": query.user_id}}, unattributed]})
    if query.status is not None:
        conditions.append({"status": {"$eq": query.status}})
    if query.cursor is not None:
        created, last_id = _parse_cursor(query.cursor)
        conditions.append(
            {"$or": [{"stpCreatedAt": {"$lt": created}}, {"stpCreatedAt": created, "_id": {"$lt": last_id}}]}
        )
    documents = collection.find({"$and": conditions} if conditions else {})
    return await documents.sort([("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]).limit(query.limit + 1).to_list()


def _parse_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        seconds, _, last_id = text.partition(".")
        created = datetime.fromtimestamp(int(seconds), UTC)
    except (binascii.Error, ValueError, OverflowError, OSError):
        raise InvalidCursor from None
    return created, last_id


class Payments(Rows[Payment]):
    """The collection ``payments``: one document for each Stripe payment intent."""

    COLLECTION: Final = "payments"
    INDEXES: Final = (
        IndexModel([("stpPaymentIntentId", ASCENDING)], unique=True),
        IndexModel([("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("userId", ASCENDING), ("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("stpCustomerId", ASCENDING), ("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
    )

    async def find_by_stripe_id(self, intent_id: str) -> Payment | None:
        """The record of a payment intent."""
        return await self._one({"stpPaymentIntentId": {"$eq": intent_id}})

    async def page(self, query: PageQuery) -> list[Payment]:
        """A page of payments, as ``newest_first``."""
        return [self._read(document) for document in await newest_first(self._collection, query)]


class FailedPaymentMails(Rows[FailedPaymentMail]):
    """The collection ``failed_payment_mails``: for each subscription the time of the last mail about a failed payment.

    If two payments of one subscription fail at once in two instances, both write this document. The second handler
    runs again and reads the time that the first one wrote.
    """

    COLLECTION: Final = "failed_payment_mails"
    INDEXES: Final = ()

    async def claim(self, stripe_subscription_id: str, work: Work) -> bool:
        """Claim the mail of a subscription; False if another one was sent within ``MAIL_PAUSE``."""
        last = await self.find(stripe_subscription_id)
        if last is None:
            self.add(FailedPaymentMail(id=stripe_subscription_id, ordered_at=work.now), work)
            return True
        if last.recent(work.now):
            return False
        self.save(replace(last, ordered_at=work.now), work)
        return True
