"""What news is ordered and asked: items that apps show."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, ConfigDict, Field, PlainSerializer, RootModel

from shared.messages.message import Command, Event, Part, Query, Reply, iso_milliseconds

When = Annotated[AwareDatetime, PlainSerializer(iso_milliseconds, return_type=str, when_used="json")]
"""A moment that a person chose: with its offset, since what it means must not depend on where we run."""

Line = Annotated[str, Field(min_length=1, max_length=200)]
"""Text that fits a line of a banner."""


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


class Content(Part):
    """One way to show an item."""

    code: Literal["generic_banner"] = "generic_banner"
    dismissible: bool = True
    payload: Banner


class ListNewsItems(Query, wire="news.list-news-items"):
    """Reply: NewsItemList, of the items live now for that client, newest first."""

    client_id: str


class NewsItemView(Reply):
    """A news item as an app shows it."""

    id: str
    primary: Content
    fallback: Content | None


class NewsItemList(RootModel[tuple[NewsItemView, ...]]):
    """A JSON list, newest first."""

    model_config = ConfigDict(frozen=True)


class CreateNewsItem(Command, wire="news.create-news-item"):
    """Publish an item. Reply: NewsItemView.

    Refused: ``news_item_ends_before_it_starts``, ``action_url_not_allowed``, ``news_item_already_exists``.
    """

    primary: Content
    fallback: Content | None = None
    clients: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)] | None = None
    """The clients that show it; null for all that are registered."""
    starts_at: When | None = None
    """Null for now."""
    ends_at: When | None = None
    """Null for no end."""
    id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """An id of the operator's choice; made up when left out."""


class NewsItemCreated(Event, wire="news.news-item-created"):
    """An item was published."""

    item_id: str
