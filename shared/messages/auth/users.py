"""Users, their identifiers, and their marketing consent."""

from typing import Annotated, Literal

from pydantic import Field

from shared.errors import InvalidCursor
from shared.messages.auth.errors import InvalidEmail, PartialSearchDisabled, UserNotFound
from shared.messages.mailer.consents import ConsentLevel, MarketingConsentView
from shared.messages.mailer.errors import AwaitingConsent
from shared.messages.message import SERVICE_COMMANDS, Command, Event, OperatorList, Part, Query, Reply
from shared.messages.types import (
    CreatedAt,
    Cursor,
    CursorText,
    Limit,
    Many,
    MaxPlain,
    Moment,
    NextCursor,
    Sealed,
    Since,
    Until,
    UpdatedAt,
    UserId,
)

MIN_SEARCH_CHARACTERS = 3
"""Length of a part of an address or number."""


class IdentifierView(Part):
    """An address or number that belongs, or belonged, to a user."""

    id: str
    """ID of the identifier."""
    identifier_type: Literal["email", "phone"]
    """Kind of ``identifier_value``."""
    identifier_value: str
    """Email address in lower case, or phone number in E.164."""
    created_at: CreatedAt
    updated_at: UpdatedAt
    verified_at: Moment | None
    """When the user first proved to own it; null if never."""
    removed_at: Moment | None
    """When it was removed from the user; null if it was not."""


class UserView(Reply):
    """A user."""

    id: str
    """ID of the user."""
    created_at: CreatedAt
    identifiers: Many[IdentifierView]
    """All identifiers, removed ones included, oldest first."""


class GetUser(Query, wire="auth.get-user", audited=True, reply=UserView, refuses=(UserNotFound,)):
    """Get a user."""

    user_id: UserId


class UsersView(Reply):
    """A page of users."""

    users: Many[UserView]
    """The users, the newest first; those of a search in the order of the addresses and numbers that were found."""
    next_cursor: NextCursor


class ListUsers(
    OperatorList,
    wire="auth.list-users",
    audited=True,
    reply=UsersView,
    reply_sealed=True,
    refuses=(InvalidCursor, PartialSearchDisabled),
):
    """List users, or search for them.

    A search ignores ``since`` and ``until``.
    """

    search: Annotated[Sealed, MaxPlain(254)] | None = None
    """Only users who have this email address or phone number now. A part of one, of at least 3 characters, if
    `NEST_USER_SEARCH` is `part`; a user of whom several match may then be on several pages."""
    since: Since = None
    until: Until = None
    limit: Limit = 100
    cursor: Cursor[CursorText] = None


class EnsureUser(Command, wire="auth.ensure-user", topic=SERVICE_COMMANDS, personal=True, refuses=(InvalidEmail,)):
    """Find or create the user of an address, for another service. The result is the event UserEnsured."""

    reference: str
    """Value that the sender recognizes in UserEnsured."""
    email: str


class UserEnsured(Event, wire="auth.user-ensured"):
    """Result of EnsureUser."""

    reference: str
    user_id: str


class RemoveUnusedUser(Command, wire="auth.remove-unused-user", topic=SERVICE_COMMANDS):
    """Erase a user whom an order of a trial created and who has never logged in. Sent by billing."""

    user_id: str
    ordered_at: Moment
    """Time of the last order that billing knows. After a later one the user is kept."""


class GetUserConsent(
    Query, wire="auth.get-user-consent", reply=MarketingConsentView, refuses=(UserNotFound, AwaitingConsent)
):
    """Get the marketing consent of a user."""

    user_id: UserId


class SetMarketingConsent(Command, wire="auth.set-marketing-consent", audited=True, refuses=(UserNotFound,)):
    """Set the marketing consent of a user."""

    user_id: UserId
    level: ConsentLevel


class FindConsentAddress(Command, wire="auth.find-consent-address", topic=SERVICE_COMMANDS):
    """Look up a user's address and send it to mailer as CarryMarketingConsent. Sent by mailer."""

    user_id: str
    consent_version: Annotated[int, Field(ge=1)]
    """See CarryMarketingConsent."""


class UserCreated(Event, wire="auth.user-created"):
    """A user was created."""

    user_id: str
    client_id: str | None = None
    """Client that ordered a trial for the new user; None if the user logged in, or is unknown to all clients."""
    at: Moment


class IdentifierVerified(Event, wire="auth.identifier-verified", personal=True):
    """A user proved to own an address or number."""

    user_id: str
    identifier_id: str
    identifier_type: Literal["email", "phone"]
    identifier_value: str
    at: Moment
