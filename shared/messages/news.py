"""What news is ordered and asked: items that apps show."""

from typing import Literal

from pydantic import ConfigDict, RootModel

from shared.messages.message import Command, Event, Moment, Part, Query, Reply


class Action(Part):
    """What a banner's button does."""

    cta: str
    url: str


class Banner(Part):
    """What a generic banner shows."""

    emoji: str
    title: str
    body: str
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
    """Publish an item. Reply: NewsItemView."""

    primary: Content
    fallback: Content | None = None
    clients: tuple[str, ...] | None = None
    """The clients that show it; null for all."""
    starts_at: Moment | None = None
    """Null for now."""
    ends_at: Moment | None = None
    """Null for no end."""
    id: str | None = None
    """An id of the operator's choice; made up when left out."""


class NewsItemCreated(Event, wire="news.news-item-created"):
    """An item was published."""

    item_id: str
