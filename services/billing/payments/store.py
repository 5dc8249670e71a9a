"""Stores of payments and of the times of failed-payment mails, and the pagination of payments and disputes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.payments.models import FailedPaymentMail, Payment
from services.billing.subscriptions.models import Subscription
from shared.bus.work import Work
from shared.documents import Rows
from shared.mongo import Collection, Document
from shared.paging import NewestFirst


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
        cursor: end of the previous page, made by ``cursor_of`` of ``shared.paging``.
    """

    user_id: str | None
    customers: list[str]
    status: str | None
    limit: int
    cursor: str | None


ORDER: Final = NewestFirst("stpCreatedAt")
"""Payments and disputes are listed in the order in which Stripe created them."""
LIST_INDEXES: Final = (
    ORDER.index(),
    ORDER.index("userId", scattered=True),
    ORDER.index("stpCustomerId", scattered=True),
    ORDER.index("status"),
)
"""Indexes of ``newest_first``."""


async def newest_first(collection: Collection, query: PageQuery) -> list[Document]:
    """A page, newest in Stripe first, and one more document if another page follows; raises InvalidCursor."""
    conditions: Document = {}
    if query.user_id is not None:
        conditions["$or"] = [{"userId": {"$eq": query.user_id}}]
        if query.customers:
            # An empty ``$in`` would keep MongoDB from merging two indexes, and it would sort in memory.
            conditions["$or"].append({"userId": None, "stpCustomerId": {"$in": query.customers}})
    if query.status is not None:
        conditions["status"] = {"$eq": query.status}
    return await ORDER.page(collection, conditions, limit=query.limit, cursor=query.cursor)


class Payments(Rows[Payment]):
    """The collection ``payments``: one document for each Stripe payment intent."""

    COLLECTION: Final = "payments"
    INDEXES: Final = (
        IndexModel([("stpPaymentIntentId", ASCENDING)], unique=True),
        *LIST_INDEXES,
    )

    async def find_by_stripe_id(self, intent_id: str) -> Payment | None:
        """The record of a payment intent."""
        return await self._one({"stpPaymentIntentId": {"$eq": intent_id}})

    async def latest_for(self, subscription: Subscription) -> Payment | None:
        """The payment of a subscription that was created last."""
        query = {
            "userId": {"$eq": subscription.user_id},
            "stpSubscriptionId": {"$eq": subscription.stp_subscription_id},
        }
        newest = await self._all(self._collection.find(query).sort("stpCreatedAt", DESCENDING).limit(1))
        return newest[0] if newest else None

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
