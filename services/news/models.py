"""What is a news item, and when and to whom is it shown?"""

from __future__ import annotations

import string
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from urllib.parse import urlsplit

from services.news.errors import ActionUrlNotAllowed, NewsItemEndsBeforeItStarts
from shared.messages.news import Content, CreateNewsItem, NewsItemView

_URL_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-._~:/?#[]@!$&'()*+,;=%")
"""What RFC 3986 lets a URL consist of; anything else is read differently by different apps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsItem:
    """Something that apps show for a while.

    Attributes:
        id: ``newsitem_…``, or the operator's choice.
        primary: what to show.
        fallback: what to show where the primary's code is not known.
        clients: the clients that show it; None for all that are registered.
        starts_at: from when, inclusive.
        ends_at: until when, exclusive; None for ever.
        version: guards the next write.
    """

    id: str
    primary: Content
    fallback: Content | None
    clients: tuple[str, ...] | None
    starts_at: datetime
    ends_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def create(cls, order: CreateNewsItem, *, id: str, schemes: Collection[str], at: datetime) -> Self:  # noqa: A002
        """The item that an operator ordered.

        Args:
            order: what they said.
            id: the item's id.
            schemes: URL schemes that a button may use, in lower case.
            at: now.

        Raises:
            NewsItemEndsBeforeItStarts: it would never be live.
            ActionUrlNotAllowed: a button leads elsewhere.
        """
        starts_at = order.starts_at or at
        if order.ends_at is not None and order.ends_at <= starts_at:
            raise NewsItemEndsBeforeItStarts
        for content in (order.primary, order.fallback):
            if content is not None and content.payload.action is not None:
                check_action_url(content.payload.action.url, schemes)
        return cls(
            id=id,
            primary=order.primary,
            fallback=order.fallback,
            clients=order.clients,
            starts_at=starts_at,
            ends_at=order.ends_at,
            created_at=at,
            updated_at=at,
        )

    def view(self) -> NewsItemView:
        """The item as an app shows it."""
        return NewsItemView(id=self.id, primary=self.primary, fallback=self.fallback)


def check_action_url(url: str, schemes: Collection[str]) -> None:
    """Let a URL pass that an app may open when its user presses a button.

    Raises:
        ActionUrlNotAllowed: another scheme, characters that no URL has, no host behind ``http`` or ``https``, or a
            user name before the host (``https://bank.example@evil.example`` shows one host and opens another).
    """
    refusal = ActionUrlNotAllowed(schemes=sorted(schemes))
    if not _URL_CHARACTERS.issuperset(url):
        raise refusal
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise refusal from None
    if parts.scheme not in schemes or "@" in parts.netloc or (parts.scheme in {"http", "https"} and not host):
        raise refusal
