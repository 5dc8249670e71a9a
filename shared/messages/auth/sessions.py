"""What auth is asked and ordered about sessions: where a user is logged in, and no longer."""

from typing import Literal, Self

from pydantic import ConfigDict, RootModel, model_validator

from shared.errors import NotFound
from shared.messages.auth.errors import NoCurrentSession
from shared.messages.auth.magic_links import Platform
from shared.messages.message import Command, Event, Moment, NonEmpty, Part, Query, Reply


class SessionDevice(Part):
    """What is known of a session's device."""

    platform: Platform


class SessionPlace(Part):
    """Roughly where a session was used last."""

    network: str
    """The prefix of the address: ``203.0.113.0/24`` of IPv4, ``2001:db8:1:2::/64`` of IPv6."""
    country: str | None
    """ISO 3166-1, two letters; null when nobody looked or it is not known."""
    city: str | None
    """By its English name."""


class SessionView(Part):
    """One login that is still good."""

    id: str
    client_id: str
    device: SessionDevice | None
    created_at: Moment
    last_used_at: Moment
    """When it logged in or refreshed last."""
    expires_at: Moment
    """When it ends unless it is used before."""
    place: SessionPlace | None
    current: bool
    """Whether the caller's own token belongs to it."""


class SessionList(RootModel[tuple[SessionView, ...]]):
    """A JSON list, the session used last first."""

    model_config = ConfigDict(frozen=True)


class ListSessions(Query, wire="auth.list-sessions", audited=True, reply=SessionList, refuses=(NotFound,)):
    """Where a user is logged in."""

    user_id: NonEmpty


class EndedView(Reply):
    """What ``revoke_sessions`` has done."""

    ended: int
    """How many sessions were live until then."""


class RevokeSessions(
    Command,
    wire="auth.revoke-sessions",
    reply=EndedView,
    refuses=(
        NotFound,
        NoCurrentSession,
    ),
):
    """End one session of a user, or several."""

    user_id: NonEmpty
    session_id: NonEmpty | None = None
    """The one to end."""
    which: Literal["all", "others", "current"] | None = None
    """Or some, as seen from the caller's own; all when neither is given."""

    @model_validator(mode="after")
    def _one_way_of_choosing(self) -> Self:
        if self.session_id is not None and self.which is not None:
            raise ValueError("give session_id or which, not both")
        return self


class SessionRevoked(Event, wire="auth.session-revoked"):
    """A session was ended before its time, by its user or by an operator. ``key`` is the user's id."""

    user_id: str
    client_id: str
    session_id: str
    by: str
    """What sort of caller: ``user``, ``internal`` or ``service``."""
    at: Moment
