"""News items: content, target group, time range, allowed URLs and comparison of app versions."""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Self
from urllib.parse import urlsplit

from shared.messages.news import (
    ActionUrlNotAllowed,
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

_URL_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + "-._~:/?#[]@!$&'()*+,;=%")
"""Characters of a URL (RFC 3986). Apps parse other characters differently."""
_WEB_SCHEMES: Final = frozenset({"http", "https"})
_TRAILING_ZEROS: Final = re.compile(r"(?:\.0+)+$")
VersionKey = tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """App and user that items are listed for.

    ``subscriptions`` are the states of the user's subscriptions: ``none`` for a user without one, empty without a user.
    ``dismissed`` are the IDs of the items that the user dismissed.
    """

    client_id: str
    locale: str | None = None
    app_version: str | None = None
    subscriptions: frozenset[str] = frozenset()
    dismissed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Target group of an item. A field that is None does not restrict it.

    The locale ``de`` includes ``de-AT``. Both app versions are inclusive. One of the user's subscriptions must have one
    of the states in ``subscriptions``.
    """

    clients: tuple[str, ...] | None = None
    locales: tuple[str, ...] | None = None
    min_app_version: str | None = None
    max_app_version: str | None = None
    subscriptions: tuple[str, ...] | None = None

    @classmethod
    def of(cls, command: NewsItemFields) -> Self:
        """Create the target group that an operator requested.

        Raises:
            NoSuchAppVersion: the highest version is below the lowest.
        """
        target = cls(**{each.name: getattr(command, each.name) for each in fields(cls)})
        lowest, highest = target.min_app_version, target.max_app_version
        if lowest is not None and highest is not None and version_key(highest) < version_key(lowest):
            raise NoSuchAppVersion
        return target

    def includes(self, reader: Reader) -> bool:
        """Whether the reader belongs to the group. A reader without a value for a restricted field does not."""
        return self.includes_app(reader) and self.includes_user(reader)

    def includes_app(self, reader: Reader) -> bool:
        """Whether the group includes the reader's app, language and version."""
        return (
            (self.clients is None or reader.client_id in self.clients)
            and (self.locales is None or _matches_locale(reader.locale, self.locales))
            and self._includes_version(reader.app_version)
        )

    def includes_user(self, reader: Reader) -> bool:
        """Whether the group includes users with the reader's subscriptions."""
        return self.subscriptions is None or not reader.subscriptions.isdisjoint(self.subscriptions)

    def _includes_version(self, app_version: str | None) -> bool:
        if self.min_app_version is None and self.max_app_version is None:
            return True
        if app_version is None:
            return False
        version = version_key(app_version)
        return (self.min_app_version is None or version_key(self.min_app_version) <= version) and (
            self.max_app_version is None or version <= version_key(self.max_app_version)
        )


@dataclass(frozen=True, slots=True)
class AllowedUrls:
    """URLs that an item may open: their schemes, and the hosts of web pages, both in lower case.

    Each host includes its subdomains; without hosts, every host is allowed.
    """

    schemes: Collection[str]
    hosts: Collection[str] = ()

    def check(self, content: Content) -> None:
        """Check every URL in the content.

        Raises:
            ActionUrlNotAllowed: a URL is invalid or not allowed.
        """
        if isinstance(content, BannerContent):
            action = content.payload.action
            urls = [] if action is None else [action.url]
        else:
            urls = list(_urls(content.payload))
        for url in urls:
            if not self._allows(url):
                raise ActionUrlNotAllowed(schemes=sorted(self.schemes), hosts=sorted(self.hosts))

    def _allows(self, url: Any) -> bool:
        """Whether a URL has an allowed scheme and host and no other characters than those of a URL.

        A user name is never allowed: ``https://bank.example@evil.example`` looks like one host and opens another.
        """
        if not isinstance(url, str) or not _URL_CHARACTERS.issuperset(url):
            return False
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in self.schemes or "@" in parts.netloc:
            return False
        if parts.scheme not in _WEB_SCHEMES:
            return True
        return bool(host) and (not self.hosts or any(_is_within(host or "", allowed) for allowed in self.hosts))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsItem:
    """Item that apps show for some time.

    Attributes:
        id: ``newsitem_…``, or an ID chosen by the operator.
        primary: the preferred content.
        fallback: the content for apps that do not know the code of the primary.
        target: the target group.
        priority: items with a higher priority come first; items stored before there were priorities lack it.
        starts_at: the start, inclusive.
        ends_at: the end, exclusive; None for no end.
    """

    id: str
    primary: Content
    fallback: Content | None
    target: Target
    priority: int = 0
    starts_at: datetime
    ends_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def create(cls, command: NewsItemFields, *, id: str, allowed_urls: AllowedUrls, at: datetime) -> Self:  # noqa: A002
        """Create the item that an operator requested.

        Raises:
            NewsItemEndsBeforeItStarts: the end is not after the start.
            FallbackMissing: neither content is a banner, so some apps could show nothing.
            ActionUrlNotAllowed: a URL is invalid or not allowed.
            NoSuchAppVersion: the highest app version is below the lowest.
        """
        starts_at = command.starts_at or at
        if command.ends_at is not None and command.ends_at <= starts_at:
            raise NewsItemEndsBeforeItStarts
        if not isinstance(command.primary, BannerContent) and not isinstance(command.fallback, BannerContent):
            raise FallbackMissing
        for content in (command.primary, command.fallback):
            if content is not None:
                allowed_urls.check(content)
        return cls(
            id=id,
            primary=command.primary,
            fallback=command.fallback,
            target=Target.of(command),
            priority=command.priority,
            starts_at=starts_at,
            ends_at=command.ends_at,
            created_at=at,
            updated_at=at,
        )

    def update(self, command: NewsItemFields, *, allowed_urls: AllowedUrls, at: datetime) -> Self:
        """Replace all fields; the start remains unless the command names another.

        Raises:
            Refusal: as ``create``.
        """
        command = command.model_copy(update={"starts_at": command.starts_at or self.starts_at})
        updated = type(self).create(command, id=self.id, allowed_urls=allowed_urls, at=at)
        return replace(updated, created_at=self.created_at, version=self.version)

    def check_version(self, version: int | None) -> None:
        """Check that a change is based on the current version; None is based on any.

        Raises:
            NewsItemChanged: the item has changed since.
        """
        if version is not None and version != self.version:
            raise NewsItemChanged(version=self.version)

    def check_dismissible(self) -> None:
        """Check that users may dismiss the item.

        Raises:
            NewsItemNotDismissible: neither content is dismissible.
        """
        contents = (self.primary, self.fallback)
        if not any(content is not None and content.dismissible for content in contents):
            raise NewsItemNotDismissible

    def is_live(self, *, at: datetime) -> bool:
        """Whether the item is shown at a time."""
        return self.starts_at <= at and (self.ends_at is None or at < self.ends_at)

    def is_for_user(self, reader: Reader) -> bool:
        """Whether the target group includes the user and the user has not dismissed the item; any app."""
        return self.id not in reader.dismissed and self.target.includes_user(reader)

    def view(self) -> NewsItemView:
        """Return the item as apps show it."""
        return NewsItemView(id=self.id, primary=self.primary, fallback=self.fallback)

    def details(self) -> NewsItemDetails:
        """Return the item as operators see it."""
        parts = (self.target, self)
        return NewsItemDetails.model_validate(
            {each.name: getattr(part, each.name) for part in parts for each in fields(part)}
        )


@lru_cache(maxsize=4096)
def version_key(version: str) -> VersionKey:
    """Return the sort key of an app version in the order of Semantic Versioning (https://semver.org, section 11).

    ``2.9`` < ``2.10-beta.2`` < ``2.10-beta.11`` < ``2.10`` = ``2.10.0``. There may be more or fewer numbers than three,
    of any size: ``1.1.2201051644``. A build name after ``+`` is ignored.
    """
    release, _, prerelease = version.partition("+")[0].partition("-")
    numbers = tuple(map(int, _TRAILING_ZEROS.sub("", release).split(".")))
    # A pre-release precedes its release; in it, numbers precede words.
    identifiers = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in prerelease.split("."))
    return numbers, 0 if prerelease else 1, identifiers


def _matches_locale(locale: str | None, locales: tuple[str, ...]) -> bool:
    """Whether a language is one of these or a variant of one (RFC 4647 section 3.3.1, basic filtering)."""
    if locale is None:
        return False
    return (locale.lower() + "-").startswith(_locale_prefixes(locales))


@lru_cache(maxsize=4096)
def _locale_prefixes(locales: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(locale.lower() + "-" for locale in locales)


def _is_within(host: str, allowed: str) -> bool:
    return host == allowed or host.endswith("." + allowed)


def _urls(payload: Any) -> Iterator[Any]:
    """Yield the value of every key ``url`` at any depth."""
    if isinstance(payload, dict):
        for key, value in payload.items():
            if key == "url":
                yield value
            yield from _urls(value)
    elif isinstance(payload, list):
        for value in payload:
            yield from _urls(value)
