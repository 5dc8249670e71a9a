"""Messages and refusals of news: items that apps show."""

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, RootModel, Tag, model_validator
from pydantic.config import JsonDict

from shared.errors import Kind, NotFound, Refusal
from shared.messages.message import Command, Event, OperatorList, Part, Query, Reply
from shared.messages.types import (
    AnyId,
    BaseVersion,
    CreatedAt,
    Locale,
    Many,
    Moment,
    NonEmpty,
    PreferredLocale,
    UpdatedAt,
    UserId,
    Version,
)

Line = Annotated[str, Field(min_length=1, max_length=200)]
"""A short string that fits on a line of a banner."""
_RELEASE: Final = r"[0-9]{1,32}(?:\.[0-9]{1,32}){0,9}"
_READABLE_VERSION: Final = re.compile(
    rf"\s*(?:v(?:ersion)?\.?\s*)?({_RELEASE}(?:-[0-9a-z.-]{{1,100}})?)(?:[\s+(].*)?", re.IGNORECASE | re.DOTALL
)


MAX_VERSION: Final = 512


def app_version(text: str) -> str | None:
    """Return the numbers and the pre-release of an app's version; None if the text is not a version.

    Apps have no common format. A ``v`` before the numbers is dropped, and everything after a space, ``+`` or ``(`` is
    the name of a build, which is dropped too: ``v1.2.3-beta.2 (456)`` becomes ``1.2.3-beta.2``. The result has at most
    10 numbers of 32 digits and a pre-release of 100 characters.
    """
    version = _READABLE_VERSION.fullmatch(text)
    return None if version is None else version[1]


AppVersion = Annotated[str, Field(pattern=rf"^{_RELEASE}([-+][0-9A-Za-z.+-]{{1,100}})?$", max_length=MAX_VERSION)]
"""A version of up to ten numbers, compared as in Semantic Versioning: ``2.10-beta.2`` < ``2.10`` = ``2.10.0``. A
suffix after ``+`` (the name of a build) is ignored."""
ReportedAppVersion = Annotated[
    Annotated[str, Field(max_length=MAX_VERSION)] | None,
    BeforeValidator(lambda value: app_version(value) if isinstance(value, str) else value),
]
"""The version that an app reports about itself, as ``app_version``; a text that is not a version counts as null."""
SubscriptionState = Literal[
    "none", "trialing", "active", "past_due", "incomplete", "incomplete_expired", "unpaid", "paused", "canceled"
]
"""Stripe's status of a subscription, or ``none`` for users who never had one."""


class NewsItemNotFound(NotFound, code="not_found"):
    """No news item has this ID."""


class NewsItemEndsBeforeItStarts(Refusal):
    """``ends_at`` is not after ``starts_at``."""


class NoSuchAppVersion(Refusal):
    """``max_app_version`` is lower than ``min_app_version``."""


class FallbackMissing(Refusal):
    """The primary is not a ``generic_banner``, so a ``generic_banner`` is needed as the fallback."""


class ActionUrlNotAllowed(Refusal):
    """A URL is invalid or not allowed by the settings; ``meta.schemes`` and ``meta.hosts`` list the allowed ones."""


class NewsItemAlreadyExists(Refusal, kind=Kind.CONFLICT):
    """A news item with this ID exists already."""


class NewsItemChanged(Refusal, kind=Kind.CONFLICT):
    """The item has changed since the ``version`` in the request; ``meta.version`` is the current one."""


class NewsItemNotDismissible(Refusal, kind=Kind.CONFLICT):
    """The item cannot be dismissed."""


class Action(Part):
    """Button of a banner."""

    cta: Line
    """Label of the button."""
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    """Target of the button: a web page, or a location in the app. The settings limit schemes and hosts."""


class Banner(Part):
    """Content of a generic banner."""

    emoji: Annotated[str, Field(max_length=16)]
    """Emoji beside the title."""
    title: Line
    """Title."""
    body: Annotated[str, Field(min_length=1, max_length=2000)]
    """Text."""
    action: Action | None = None
    """Button; null for none."""


class BannerContent(Part):
    """A generic banner, which every app can show."""

    code: Literal["generic_banner"] = "generic_banner"
    """Always ``generic_banner``."""
    dismissible: bool = True
    """Whether the user can dismiss the item."""
    payload: Banner
    """Content of the banner."""


NOT_A_BANNER: Final[JsonDict] = {"not": {"const": "generic_banner"}}
"""JSON Schema that distinguishes the two kinds of content."""


class OtherContent(Part):
    """Content of a kind that some apps do not know; those show the fallback."""

    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", max_length=64, json_schema_extra=NOT_A_BANNER)]
    """Kind of content."""
    dismissible: bool = True
    """Whether the user can dismiss the item."""
    payload: Annotated[dict[str, JsonValue], Field(max_length=1_000)]
    """Data for the apps that know the kind. A field ``url`` at any depth is checked like that of a banner's button.
    Integers have 64 bits at most, and names no null character."""


def _content_kind(content: Any) -> str:
    code = content.get("code", "generic_banner") if isinstance(content, dict) else getattr(content, "code", None)
    return "banner" if code == "generic_banner" else "other"


Content = Annotated[
    Annotated[BannerContent, Tag("banner")] | Annotated[OtherContent, Tag("other")], Discriminator(_content_kind)
]


class NewsItemView(Reply):
    """A news item as an app shows it."""

    id: str
    """ID of the item."""
    primary: Content
    """Preferred content."""
    fallback: Content | None
    """Content for apps that do not know the ``code`` of the primary. A ``generic_banner``, or null if the primary is
    one."""


class NewsItemList(RootModel[Many[NewsItemView]]):
    """News items, highest priority first, then newest first; 100 at most."""

    model_config = ConfigDict(frozen=True)


class ListNewsItems(Query, wire="news.list-news-items", reply=NewsItemList, shared=True):
    """List the news items to show.

    Returns the live items for this client and, with an access token, this user. The list is empty for an unknown
    client.
    """

    client_id: AnyId
    """ID of the client."""
    locale: PreferredLocale = None
    """Language of the app (RFC 5646), for example ``de-AT``; ``de_AT`` and extensions are accepted. Items for certain
    languages are omitted without it, and if it is unreadable."""
    app_version: ReportedAppVersion = None
    """Version of the app, for example ``2.10.3``, ``v2.10.3`` or ``2.10.3 (456)``. Items for certain versions are
    omitted without it, and if it is unreadable."""


class NewsItemDetails(NewsItemView):
    """A news item with its targeting."""

    clients: Many[str] | None
    """IDs of the clients that show the item; null for all."""
    locales: Many[str] | None
    """Languages that the item is for; null for all."""
    min_app_version: str | None
    """Lowest version of the app that shows the item; null for all."""
    max_app_version: str | None
    """Highest version of the app that shows the item; null for all."""
    subscriptions: Many[SubscriptionState] | None
    """States of a user's subscription, one of which is needed to see the item; null for everybody."""
    priority: int
    """Items with a higher priority come first."""
    starts_at: Moment
    """When the item becomes live."""
    ends_at: Moment | None
    """When the item ends; null for never."""
    created_at: CreatedAt
    updated_at: UpdatedAt
    version: Version


class NewsItemFields(Command, audited=True, reply=NewsItemDetails):
    """Fields shared by the commands that create and replace a news item."""

    primary: Content
    """Preferred content."""
    fallback: Content | None = None
    """Content for apps that do not know the ``code`` of the primary. Required unless the primary is a
    ``generic_banner``."""
    clients: Annotated[tuple[AnyId, ...], Field(min_length=1, max_length=1000)] | None = None
    """IDs of the clients that show the item; null for all."""
    locales: Annotated[tuple[Locale, ...], Field(min_length=1, max_length=200)] | None = None
    """Languages that the item is for; null for all. ``de`` includes all variants such as ``de-AT``."""
    min_app_version: AppVersion | None = None
    """Lowest version of the app that shows the item; null for all. Versions compare as in Semantic Versioning."""
    max_app_version: AppVersion | None = None
    """Highest version of the app that shows the item; null for all."""
    subscriptions: Annotated[tuple[SubscriptionState, ...], Field(min_length=1, max_length=100)] | None = None
    """Show the item only to logged-in users with a subscription in one of these states (Stripe's status, or ``none``
    for users who never had one); null for everybody."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Items with a higher priority come first."""
    starts_at: Moment | None = None
    """When the item becomes live; null for now."""
    ends_at: Moment | None = None
    """When the item ends; null for never."""

    @model_validator(mode="after")
    def _payloads_can_be_stored(self) -> Self:
        for content in (self.primary, self.fallback):
            if isinstance(content, OtherContent):
                _check_storable(content.payload)
        return self


def _check_storable(value: JsonValue) -> None:
    """Raise ValueError for what BSON cannot hold (https://bsonspec.org/spec.html)."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("an integer in a payload has more than 64 bits")
    if isinstance(value, dict):
        for name, each in value.items():
            if "\0" in name:
                raise ValueError("a name in a payload contains a null character")
            _check_storable(each)
    elif isinstance(value, list):
        for each in value:
            _check_storable(each)


class CreateNewsItem(
    NewsItemFields,
    wire="news.create-news-item",
    refuses=(NewsItemEndsBeforeItStarts, ActionUrlNotAllowed, FallbackMissing, NoSuchAppVersion, NewsItemAlreadyExists),
):
    """Create a news item."""

    id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """ID of the item. Generated if omitted."""


class UpdateNewsItem(
    NewsItemFields, wire="news.update-news-item", refuses=(*CreateNewsItem.refuses, NewsItemNotFound, NewsItemChanged)
):
    """Replace a news item. Omitted fields get their defaults, except ``starts_at``, which does not change."""

    id: NonEmpty
    """ID of the item."""
    version: BaseVersion = None


class RemoveNewsItem(Command, wire="news.remove-news-item", audited=True, refuses=(NewsItemNotFound, NewsItemChanged)):
    """Delete a news item."""

    id: NonEmpty
    """ID of the item."""
    version: BaseVersion = None


class NewsItemDetailsList(RootModel[Many[NewsItemDetails]]):
    """News items, newest first; 1,000 at most."""

    model_config = ConfigDict(frozen=True)


class ListAllNewsItems(
    OperatorList, wire="news.list-all-news-items", audited=True, reply=NewsItemDetailsList, refuses=(NewsItemNotFound,)
):
    """List all news items. Includes items that have ended or have not started."""

    client_id: AnyId | None = None
    """Only items that this client shows."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    """Maximum number of items in the page."""
    cursor: NonEmpty | None = None
    """ID of the previous page's last item. Refused as ``not_found`` if that item was deleted."""


class DismissNewsItem(
    Command, wire="news.dismiss-news-item", audited=True, refuses=(NewsItemNotFound, NewsItemNotDismissible)
):
    """Dismiss a news item for a user. Hides it on all devices of the user."""

    user_id: UserId
    news_item_id: NonEmpty
    """ID of the item."""


class NewsItemCreated(Event, wire="news.news-item-created"):
    """A news item was created."""

    item_id: str


class NewsItemUpdated(Event, wire="news.news-item-updated"):
    """A news item was replaced."""

    item_id: str


class NewsItemRemoved(Event, wire="news.news-item-removed"):
    """A news item was deleted."""

    item_id: str
