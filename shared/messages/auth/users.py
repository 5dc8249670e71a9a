"""What auth is asked about addresses by other services."""

from typing import Annotated, Literal

from pydantic import Field

from shared.errors import NotFound
from shared.messages.auth.errors import InvalidEmail
from shared.messages.message import Command, Event, Moment, NonEmpty, Part, Query, Reply


class FindConsentAddress(Command, wire="auth.find-consent-address"):
    """Have a marketing consent carried to the user's address, which auth alone knows: orders CarryMarketingConsent."""

    user_id: str
    consent_version: Annotated[int, Field(ge=1)]
    """As in CarryMarketingConsent."""


class IdentifierView(Part):
    """An address or a number that is, or was, a user's."""

    id: str
    identifier_type: Literal["email", "phone"]
    identifier_value: str
    created_at: Moment
    updated_at: Moment
    verified_at: Moment | None
    """When somebody showed that it is theirs; null while nobody has."""
    removed_at: Moment | None
    """When it was taken from the user; null while it is theirs."""


class UserView(Reply):
    """A user with all identifiers."""

    id: str
    created_at: Moment
    identifiers: tuple[IdentifierView, ...]


class GetUser(Query, wire="auth.get-user", audited=True, reply=UserView, refuses=(NotFound,)):
    """Who a user is, and how they are known."""

    user_id: NonEmpty


class EnsureUser(Command, wire="auth.ensure-user", personal=True, refuses=(InvalidEmail,)):
    """Find or make the user of an address; answered by UserEnsured. For other services; no reply body."""

    reference: str
    """Whatever the asking service wants to find in UserEnsured."""
    email: str


class SetMarketingConsent(Command, wire="auth.set-marketing-consent", audited=True, refuses=(NotFound,)):
    """Say which mails a user wants beside those that they need."""

    user_id: NonEmpty
    level: Literal["general", "none"]


class UserCreated(Event, wire="auth.user-created"):
    """A user was made."""

    user_id: str
    at: Moment


class IdentifierVerified(Event, wire="auth.identifier-verified", personal=True):
    """A user has shown that an address or a number is theirs."""

    user_id: str
    identifier_id: str
    identifier_type: Literal["email", "phone"]
    identifier_value: str
    at: Moment


class UserEnsured(Event, wire="auth.user-ensured"):
    """The answer to EnsureUser."""

    reference: str
    user_id: str
