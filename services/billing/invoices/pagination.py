"""Pages of the invoices of a user, who may have several customers in Stripe."""

from __future__ import annotations

import asyncio
import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from services.billing.context import Billing
from services.billing.stripe_api.calls import RESOURCE_MISSING, StripeRefused
from services.billing.stripe_api.payment_models import ListedInvoice
from shared.errors import InvalidCursor

Positions = dict[str, str]
"""The last invoice that was listed, by customer."""


@dataclass(frozen=True, slots=True)
class InvoicePage:
    """A page; ``next_cursor`` is None after the last one."""

    invoices: list[ListedInvoice]
    next_cursor: str | None


async def page_of(customers: Sequence[str], *, limit: int, cursor: str | None, billing: Billing) -> InvoicePage:
    """The next invoices of these customers, newest first.

    Raises:
        InvalidCursor: no page of these customers ended with this cursor.
        StripeUnavailable: Stripe does not answer in time.
    """
    positions = {} if cursor is None else _parse(cursor)
    if not positions.keys() <= set(customers):
        raise InvalidCursor
    try:
        pages = await asyncio.gather(
            *(billing.stripe.invoices_page(each, limit=limit, after=positions.get(each)) for each in customers)
        )
    except StripeRefused as refused:
        if refused.code == RESOURCE_MISSING and cursor is not None:
            raise InvalidCursor from refused
        raise
    merged = sorted((each for page in pages for each in page.invoices), key=_by_time, reverse=True)
    listed = merged[:limit]
    if len(merged) == len(listed) and not any(page.more for page in pages):
        return InvoicePage(listed, None)
    return InvoicePage(listed, _cursor(positions | {each.customer_id: each.id for each in listed}))


def _by_time(invoice: ListedInvoice) -> tuple[float, str]:
    return invoice.created.timestamp(), invoice.id


def _cursor(positions: Positions) -> str:
    return urlsafe_b64encode(json.dumps(positions, separators=(",", ":")).encode()).decode().rstrip("=")


def _parse(cursor: str) -> Positions:
    try:
        positions = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        raise InvalidCursor from None
    if not isinstance(positions, dict) or not all(isinstance(each, str) for each in positions.values()):
        raise InvalidCursor
    return positions
