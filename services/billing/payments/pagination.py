"""Pages of payments and disputes for operators, each entry with the user known now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from services.billing.context import Billing
from services.billing.payments.store import PageEntry, PageQuery
from shared.bus.work import Work
from shared.messages.billing.disputes import ListDisputes
from shared.messages.billing.payments import ListPayments
from shared.paging import cursor_of

View_co = TypeVar("View_co", covariant=True)
View = TypeVar("View")


class AttributedEntry(PageEntry, Protocol[View_co]):
    """A payment or a dispute."""

    @property
    def user_id(self) -> str | None:
        """Its user as recorded."""

    @property
    def stp_customer_id(self) -> str | None:
        """Its customer in Stripe."""

    def view(self, user_id: str | None) -> View_co:
        """The view for operators, with the user as known now."""


class PageStore(Protocol[View_co]):
    """The store of payments or of disputes."""

    async def page(self, query: PageQuery) -> Sequence[AttributedEntry[View_co]]:
        """The entries of a page, and one more if another page follows."""


async def page_of(
    store: PageStore[View], query: ListPayments | ListDisputes, work: Work, billing: Billing
) -> tuple[tuple[View, ...], str | None]:
    """The views of a page, newest first, and the cursor of the next page, which is None after the last one.

    Raises:
        InvalidCursor: the query's cursor is not one that a page ended with.
    """
    customers = [] if query.user_id is None else await billing.mappings.customers_of(query.user_id)
    entries = await store.page(
        PageQuery(
            user_id=query.user_id, customers=customers, status=query.status, limit=query.limit, cursor=query.cursor
        )
    )
    page = entries[: query.limit]
    if page:
        work.annotate(user_id=query.user_id)
    unattributed = {each.stp_customer_id for each in page if each.user_id is None and each.stp_customer_id is not None}
    users = await billing.mappings.users_of(unattributed) if unattributed else {}
    views = tuple(each.view(each.user_id or users.get(each.stp_customer_id or "")) for each in page)
    return views, cursor_of(page[-1].stp_created_at, page[-1].id) if len(entries) > len(page) else None
