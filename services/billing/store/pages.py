"""How is a long list read page by page, newest in Stripe first, while it grows?"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from pymongo import DESCENDING

from shared.messages.billing.errors import InvalidCursor
from shared.mongo import Collection, Document


class Listed(Protocol):
    """What such a list consists of."""

    @property
    def id(self) -> str:
        """Ours."""

    @property
    def stp_created_at(self) -> datetime:
        """When it was made in Stripe, in whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which page of which list.

    Attributes:
        user_id: only what is this user's.
        customers: the user's customers: what is theirs and has no user yet is the user's too.
        status: only what has this status.
        limit: how many.
        cursor: where the page before ended, as ``cursor_of`` writes it.
    """

    user_id: str | None
    customers: list[str]
    status: str | None
    limit: int
    cursor: str | None


def cursor_of(last: Listed) -> str:
    """Where a page ended whose last entry this is."""
    return urlsafe_b64encode(f"{last.stp_created_at.timestamp():.0f}.{last.id}".encode()).decode().rstrip("=")


async def newest_first(collection: Collection, page: Page) -> list[Document]:
    """The documents of a page, and one more if there are more.

    Raises:
        InvalidCursor: no page of ours ended so.
    """
    wanted: list[Document] = []
    if page.user_id is not None:
        unattributed = {"userId": None, "stpCustomerId": {"$in": page.customers}}
        wanted.append({"$or": [{"userId": {"$eq": page.user_id}}, unattributed]})
    if page.status is not None:
        wanted.append({"status": {"$eq": page.status}})
    if page.cursor is not None:
        created, last_id = _parsed(page.cursor)
        wanted.append({"$or": [{"stpCreatedAt": {"$lt": created}}, {"stpCreatedAt": created, "_id": {"$lt": last_id}}]})
    found = collection.find({"$and": wanted} if wanted else {})
    return await found.sort([("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]).limit(page.limit + 1).to_list()


def _parsed(cursor: str) -> tuple[datetime, Any]:
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        seconds, _, last_id = text.partition(".")
        created = datetime.fromtimestamp(int(seconds), UTC)
    except (binascii.Error, ValueError, OverflowError, OSError):
        raise InvalidCursor from None
    return created, last_id
