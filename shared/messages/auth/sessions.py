"""Sessions: the logins of a user."""

from typing import Literal, Self

from pydantic import ConfigDict, RootModel, model_validator

from shared.messages.auth.errors import NoCurrentSession, SessionNotFound, UserNotFound
from shared.messages.auth.magic_links import Platform
from shared.messages.mailer.mails import SendMail
from shared.messages.message import SERVICE_COMMANDS, Command, Event, Part, Query, Reply
from shared.messages.types import Many, Moment, NonEmpty, Sealed, UserId


class SessionDevice(Part):
    """The device of a session, as the app described it at login."""

    platform: Platform
    """Operating system of the device."""


class SessionPlace(Part):
    """Approximate location of the last use of a session."""

    network: str
    """Prefix of the IP address: ``203.0.113.0/24`` for IPv4, ``2001:db8:1:2::/64`` for IPv6."""
    country: str | None
    """Country (ISO 3166-1 alpha-2); null if unknown or if the server has no location database."""
    city: str | None
    """English name of the city; null if unknown."""


class SessionView(Part):
    """A live session: one login on one device, to one client."""

    id: str
    """ID of the session."""
    client_id: str
    """ID of the client that the user logged in to."""
    device: SessionDevice | None
    """The device; null if the app did not send one."""
    created_at: Moment
    """When the session was created, at its login."""
    last_used_at: Moment
    """Time of the login or the latest refresh."""
    expires_at: Moment
    """When the session expires without further use."""
    place: SessionPlace | None
    """Location of the login or the latest refresh; null if unknown."""
    current: bool
    """Whether the access token of this request belongs to the session."""


class SessionList(RootModel[Many[SessionView]]):
    """Live sessions, most recently used first; 200 at most."""

    model_config = ConfigDict(frozen=True)


class ListSessions(Query, wire="auth.list-sessions", audited=True, reply=SessionList, refuses=(UserNotFound,)):
    """List the live sessions of a user."""

    user_id: UserId


class EndedView(Reply):
    """Result of ``revoke_sessions``."""

    ended: int
    """Number of live sessions that the call ended."""


class RevokeSessions(
    Command, wire="auth.revoke-sessions", reply=EndedView, refuses=(SessionNotFound, NoCurrentSession)
):
    """End sessions of a user.

    Takes ``session_id``, or ``which``, or neither to end all. Refresh tokens of the ended sessions stop working
    immediately, access tokens within a second.
    """

    user_id: UserId
    session_id: NonEmpty | None = None
    """ID of the one session to end."""
    which: Literal["all", "others", "current"] | None = None
    """Sessions to end: ``all``, the one of this request's access token (``current``), or all except that one
    (``others``)."""

    @model_validator(mode="after")
    def _at_most_one_selection(self) -> Self:
        if self.session_id is not None and self.which is not None:
            raise ValueError("give session_id or which, not both")
        return self


class FindLastLogin(Command, wire="auth.find-last-login", topic=SERVICE_COMMANDS):
    """Look up the last login of a mail's recipient, and order the mail with it. The key is that of the mail's order."""

    address: Sealed
    """The recipient's address."""
    mail: SendMail
    """The order, without ``last_login``."""


class SessionRevoked(Event, wire="auth.session-revoked"):
    """A session was ended by its user or by an operator. The key is the user's ID."""

    user_id: str
    client_id: str
    session_id: str
    by: str
    """Kind of caller: ``user``, ``internal`` or ``service``."""
    at: Moment
