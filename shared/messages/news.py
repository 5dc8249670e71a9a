"""What news is ordered and asked: items that apps show."""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    RootModel,
    Tag,
)
from pydantic.config import JsonDict

from shared.errors import Kind, NotFound, Refusal
from shared.messages.message import Command, Event, Locale, Moment, NonEmpty, Part, Query, Reply

Line = Annotated[str, Field(min_length=1, max_length=200)]
"""Text that fits a line of a banner."""
AppVersion = Annotated[str, Field(pattern=r"^\d{1,9}(\.\d{1,9}){0,3}([-+][0-9A-Za-z.+-]{1,50})?$")]
"""Numbers with dots between them, ``2.10.3``, compared as Semantic Versioning says: ``2.10-beta.2`` comes before
``2.10``, which equals ``2.10.0``; what follows a ``+`` (a build's name) says nothing here."""
SubscriptionState = Literal[
    "none", "trialing", "active", "past_due", "incomplete", "incomplete_expired", "unpaid", "paused", "canceled"
]
"""Stripe's word for one of a user's subscriptions, or ``none`` where there never was one."""


class Action(Part):
    """What a banner's button does."""

    cta: Line
    """The button's words."""
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    """Where it leads: a web page, or a place in the app."""


class Banner(Part):
    """What a generic banner shows."""

    emoji: Annotated[str, Field(max_length=16)]
    title: Line
    body: Annotated[str, Field(min_length=1, max_length=2000)]
    action: Action | None = None


class BannerContent(Part):
    """An item shown as a banner, which every app can."""

    code: Literal["generic_banner"] = "generic_banner"
    dismissible: bool = True
    payload: Banner


NOT_A_BANNER: Final[JsonDict] = {"not": {"const": "generic_banner"}}
"""What tells the two kinds of content apart, for readers of the schema."""


class OtherContent(Part):
    """An item shown in a way that some apps know and others do not yet: those show the fallback."""

    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", json_schema_extra=NOT_A_BANNER)]
    dismissible: bool = True
    payload: dict[str, JsonValue]
    """Whatever the apps that know the code expect. Every ``url`` in it is held to the rules of a button's."""


def _kind(content: Any) -> str:
    code = content.get("code", "generic_banner") if isinstance(content, dict) else getattr(content, "code", None)
    return "banner" if code == "generic_banner" else "other"


Content = Annotated[
    Annotated[BannerContent, Tag("banner")] | Annotated[OtherContent, Tag("other")], Discriminator(_kind)
]
"""One way to show an item."""


class NewsItemView(Reply):
    """A news item as an app shows it."""

    id: str
    primary: Content
    fallback: Content | None


class NewsItemList(RootModel[tuple[NewsItemView, ...]]):
    """A JSON list, the most important and then the newest first."""

    model_config = ConfigDict(frozen=True)


class ListNewsItems(Query, wire="news.list-news-items", reply=NewsItemList):
    """What an app is to show now.

    Items that are for others than whoever asks are left out; an unknown client has none.
    """

    client_id: str
    """The app's."""
    locale: Locale | None = None
    """The app's language; without it, items for some languages only are left out."""
    app_version: AppVersion | None = None
    """The app's version; without it, items for some versions only are left out."""


class NewsItemFields(Command):
    """What an operator says of an item: all that there is to it but its id."""

    primary: Content
    fallback: Content | None = None
    """What apps show that don't know the primary's code; needed where that is no generic banner."""
    clients: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)] | None = None
    """The clients that show it; null for all that are registered."""
    locales: Annotated[tuple[Locale, ...], Field(min_length=1, max_length=200)] | None = None
    """The languages it is for, ``de`` for every kind of German; null for all."""
    min_app_version: AppVersion | None = None
    """The first version of an app that shows it; null for all."""
    max_app_version: AppVersion | None = None
    """The last one."""
    subscriptions: Annotated[tuple[SubscriptionState, ...], Field(min_length=1)] | None = None
    """For users who have a subscription in one of these states; then nobody sees it who is not signed in. Null for
    everybody."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Higher ones come first."""
    starts_at: Moment | None = None
    """Null for now."""
    ends_at: Moment | None = None
    """Null for no end."""


class NewsItemDetails(NewsItemView):
    """A news item as operators see it."""

    clients: tuple[str, ...] | None
    locales: tuple[str, ...] | None
    min_app_version: str | None
    max_app_version: str | None
    subscriptions: tuple[SubscriptionState, ...] | None
    priority: int
    starts_at: Moment
    ends_at: Moment | None
    created_at: Moment
    updated_at: Moment
    version: int
    """Counts the changes, from 1."""


class NewsItemEndsBeforeItStarts(Refusal):
    """The item's end is not after its start, so nobody would ever see it."""


class NoSuchAppVersion(Refusal):
    """The item's last version of an app comes before its first, so nobody would ever see it."""


class FallbackMissing(Refusal):
    """Apps that don't know the primary's code would show nothing: give a ``generic_banner`` as the fallback."""


class ActionUrlNotAllowed(Refusal):
    """A URL leads where the settings do not allow, or is no URL; ``meta.schemes`` and ``meta.hosts`` list what is."""


class NewsItemAlreadyExists(Refusal):
    """The id that the operator chose is another item's."""

    kind = Kind.CONFLICT


class CreateNewsItem(
    NewsItemFields,
    wire="news.create-news-item",
    audited=True,
    reply=NewsItemDetails,
    refuses=(
        NewsItemEndsBeforeItStarts,
        ActionUrlNotAllowed,
        FallbackMissing,
        NoSuchAppVersion,
        NewsItemAlreadyExists,
    ),
):
    """Publish an item."""

    id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """An id of the operator's choice; made up when left out."""


class NewsItemChanged(Refusal):
    """Somebody changed the item since it was read; ``meta.version`` is the version it has now."""

    kind = Kind.CONFLICT


class UpdateNewsItem(
    NewsItemFields,
    wire="news.update-news-item",
    audited=True,
    reply=NewsItemDetails,
    refuses=(
        *CreateNewsItem.refuses,
        NotFound,
        NewsItemChanged,
    ),
):
    """Say anew what an item is: what is left out has its default again. ``starts_at`` left out stays as it was."""

    id: NonEmpty
    version: int | None = None
    """The version that was read: refused if somebody changed it since. Null to write over whatever is there."""


class RemoveNewsItem(
    Command,
    wire="news.remove-news-item",
    audited=True,
    refuses=(
        NotFound,
        NewsItemChanged,
    ),
):
    """Take an item away for good."""

    id: NonEmpty
    version: int | None = None
    """As in UpdateNewsItem."""


class NewsItemDetailsList(RootModel[tuple[NewsItemDetails, ...]]):
    """A JSON list, the newest first; 1,000 at most."""

    model_config = ConfigDict(frozen=True)


class ListAllNewsItems(
    Query, wire="news.list-all-news-items", audited=True, reply=NewsItemDetailsList, refuses=(NotFound,)
):
    """All items, whenever and for whomever they are live."""

    client_id: str | None = None
    """Only those that this client shows."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    cursor: NonEmpty | None = None
    """Only older ones than the item with this id: the last one of the page before. Refused when it is gone:
    ``not_found``."""


class NewsItemNotDismissible(Refusal):
    """The item stays for as long as it is live."""

    kind = Kind.CONFLICT


class DismissNewsItem(
    Command,
    wire="news.dismiss-news-item",
    audited=True,
    refuses=(
        NotFound,
        NewsItemNotDismissible,
    ),
):
    """Show an item no more to a user, on none of their devices."""

    user_id: NonEmpty
    news_item_id: NonEmpty


class NewsItemCreated(Event, wire="news.news-item-created"):
    """An item was published."""

    item_id: str


class NewsItemUpdated(Event, wire="news.news-item-updated"):
    """An item is no longer what it was."""

    item_id: str


class NewsItemRemoved(Event, wire="news.news-item-removed"):
    """An item was taken away."""

    item_id: str
