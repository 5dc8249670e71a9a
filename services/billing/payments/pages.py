"""How do operators read a long list of what Stripe has charged? A page at a time, each entry with its user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from services.billing.context import Billing
from services.billing.payments.store import PageEntry, PageQuery, cursor_of
from shared.bus.work import Work
from shared.messages.billing.disputes import ListDisputes
from shared.messages.billing.payments import ListPayments

View_co = TypeVar("View_co", covariant=True)
View = TypeVar("View")


class Shown(PageEntry, Protocol[View_co]):
    """An entry of such a list."""

    @property
    def user_id(self) -> str | None:
        """Whose it is, as recorded."""

    @property
    def stp_customer_id(self) -> str | None:
        """Whose it is in Stripe."""

    def view(self, user_id: str | None) -> View_co:
        """As operators read it, with the user known now."""


class Pages(Protocol[View_co]):
    """A store that is read so."""

    async def page(self, query: PageQuery) -> Sequence[Shown[View_co]]:
        """The entries asked for, and one more if there are more."""


async def one_page(
    store: Pages[View], query: ListPayments | ListDisputes, work: Work, billing: Billing
) -> tuple[tuple[View, ...], str | None]:
    """The entries of a page, newest first, and the cursor of the next one, None after the last.

    Raises:
        InvalidCursor: no page ended with the query's.
    """
    customers = [] if query.user_id is None else await billing.mappings.customers_of(query.user_id)
    found = await store.page(
        PageQuery(
            user_id=query.user_id, customers=customers, status=query.status, limit=query.limit, cursor=query.cursor
        )
    )
    page = found[: query.limit]
    if page:
        work.annotate(user_id=query.user_id)
    unattributed = {each.stp_customer_id for each in page if each.user_id is None and each.stp_customer_id is not None}
    users = await billing.mappings.users_of(unattributed) if unattributed else {}
    views = tuple(each.view(each.user_id or users.get(each.stp_customer_id or "")) for each in page)
    return views, cursor_of(page[-1]) if len(found) > len(page) else None
