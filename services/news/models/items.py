"""What is a news item, and when and to whom is it shown?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Self

from services.news.models.links import Links
from services.news.models.versions import order
from shared.messages.news import (
    BannerContent,
    Content,
    FallbackMissing,
    NewsItemChanged,
    NewsItemDetails,
    NewsItemEndsBeforeItStarts,
    NewsItemFields,
    NewsItemNotDismissible,
    NewsItemView,
    NoSuchAppVersion,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Whom items are listed for.

    Attributes:
        client_id: their app.
        locale: its language, None where it says none.
        app_version: its version, None where it says none.
        subscriptions: the states of the user's subscriptions, ``none`` where there are none; empty for a stranger.
        dismissed: the ids of items that the user wants to see no more.
    """

    client_id: str
    locale: str | None = None
    app_version: str | None = None
    subscriptions: frozenset[str] = frozenset()
    dismissed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """For whom an item is; None in a field for everybody.

    Attributes:
        clients: the ids of the apps that show it.
        locales: languages; ``de`` stands for ``de-AT`` too.
        min_app_version: the first version of an app that shows it.
        max_app_version: the last one.
        subscriptions: states, one of which a subscription of the user must have.
    """

    clients: tuple[str, ...] | None = None
    locales: tuple[str, ...] | None = None
    min_app_version: str | None = None
    max_app_version: str | None = None
    subscriptions: tuple[str, ...] | None = None

    @classmethod
    def of(cls, said: NewsItemFields) -> Self:
        """Whom an operator wants to reach.

        Raises:
            NoSuchAppVersion: nobody could have such an app.
        """
        target = cls(
            clients=said.clients,
            locales=said.locales,
            min_app_version=said.min_app_version,
            max_app_version=said.max_app_version,
            subscriptions=said.subscriptions,
        )
        first, last = target.min_app_version, target.max_app_version
        if first is not None and last is not None and order(last) < order(first):
            raise NoSuchAppVersion
        return target

    def fits(self, reader: Reader) -> bool:
        """Whether the reader is among them. Who does not say what a target asks for is not."""
        return self.fits_app(reader) and self.fits_person(reader)

    def fits_app(self, reader: Reader) -> bool:
        """Whether the reader's app is, in its language and version."""
        return (
            (self.clients is None or reader.client_id in self.clients)
            and (self.locales is None or _speaks(reader.locale, self.locales))
            and self._fits_version(reader.app_version)
        )

    def fits_person(self, reader: Reader) -> bool:
        """Whether the reader is, by how they subscribe."""
        return self.subscriptions is None or not reader.subscriptions.isdisjoint(self.subscriptions)

    def _fits_version(self, app_version: str | None) -> bool:
        if self.min_app_version is None and self.max_app_version is None:
            return True
        if app_version is None:
            return False
        version = order(app_version)
        return (self.min_app_version is None or order(self.min_app_version) <= version) and (
            self.max_app_version is None or version <= order(self.max_app_version)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsItem:
    """Something that apps show for a while.

    Attributes:
        id: ``newsitem_…``, or the operator's choice.
        primary: what to show.
        fallback: what to show where the primary's code is not known.
        target: for whom it is.
        priority: higher ones come first.
        starts_at: from when, inclusive.
        ends_at: until when, exclusive; None for ever.
        version: counts the changes; guards the next one.
    """

    id: str
    primary: Content
    fallback: Content | None
    target: Target
    priority: int
    starts_at: datetime
    ends_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def create(cls, order: NewsItemFields, *, id: str, links: Links, at: datetime) -> Self:  # noqa: A002
        """The item that an operator ordered.

        Args:
            order: what they said.
            id: the item's id.
            links: where it may lead.
            at: now.

        Raises:
            NewsItemEndsBeforeItStarts: it would never be live.
            FallbackMissing: some apps could show nothing.
            ActionUrlNotAllowed: it leads elsewhere.
            NoSuchAppVersion: no app could have a version that shows it.
        """
        starts_at = order.starts_at or at
        if order.ends_at is not None and order.ends_at <= starts_at:
            raise NewsItemEndsBeforeItStarts
        if not isinstance(order.primary, BannerContent) and not isinstance(order.fallback, BannerContent):
            raise FallbackMissing
        for content in (order.primary, order.fallback):
            if content is not None:
                links.check(content)
        return cls(
            id=id,
            primary=order.primary,
            fallback=order.fallback,
            target=Target.of(order),
            priority=order.priority,
            starts_at=starts_at,
            ends_at=order.ends_at,
            created_at=at,
            updated_at=at,
        )

    def update(self, order: NewsItemFields, *, links: Links, at: datetime) -> Self:
        """The same item as an operator says it anew; it starts when it did, unless they say otherwise.

        Raises:
            Refusal: as ``create``.
        """
        order = order.model_copy(update={"starts_at": order.starts_at or self.starts_at})
        said = type(self).create(order, id=self.id, links=links, at=at)
        return replace(said, created_at=self.created_at, version=self.version)

    def must_be(self, version: int | None) -> None:
        """Let a change pass that was made to this version, or to any.

        Raises:
            NewsItemChanged: it was made to another.
        """
        if version is not None and version != self.version:
            raise NewsItemChanged(version=self.version)

    def must_be_dismissible(self) -> None:
        """Let a user put it away.

        Raises:
            NewsItemNotDismissible: it is to stay.
        """
        shown = (self.primary, self.fallback)
        if not any(content is not None and content.dismissible for content in shown):
            raise NewsItemNotDismissible

    def live(self, *, at: datetime) -> bool:
        """Whether it is shown at a moment, to whomever."""
        return self.starts_at <= at and (self.ends_at is None or at < self.ends_at)

    def shown_to(self, reader: Reader) -> bool:
        """Whether it is for that person, who has not put it away; by which app they read is another question."""
        return self.id not in reader.dismissed and self.target.fits_person(reader)

    def view(self) -> NewsItemView:
        """The item as an app shows it."""
        return NewsItemView(id=self.id, primary=self.primary, fallback=self.fallback)

    def details(self) -> NewsItemDetails:
        """The item as operators see it."""
        return NewsItemDetails.model_validate(
            {
                "id": self.id,
                "primary": self.primary,
                "fallback": self.fallback,
                "clients": self.target.clients,
                "locales": self.target.locales,
                "min_app_version": self.target.min_app_version,
                "max_app_version": self.target.max_app_version,
                "subscriptions": self.target.subscriptions,
                "priority": self.priority,
                "starts_at": self.starts_at,
                "ends_at": self.ends_at,
                "created_at": self.created_at,
                "updated_at": self.updated_at,
                "version": self.version,
            }
        )


def _speaks(locale: str | None, locales: tuple[str, ...]) -> bool:
    """Whether a language is one of these, or a kind of one (RFC 4647 section 3.3.1, basic filtering)."""
    if locale is None:
        return False
    return (locale.lower() + "-").startswith(_ranges(locales))


@lru_cache(maxsize=4096)
def _ranges(locales: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(locale.lower() + "-" for locale in locales)
