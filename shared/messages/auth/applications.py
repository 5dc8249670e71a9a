"""Applications of owners: created, changed and deleted with the owner's credentials."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from shared.messages.auth.accounts import AlwaysTrue, ApiKey, OwnerId, OwnerToken, Password, Text
from shared.messages.auth.errors import (
    ApplicationNotFound,
    AppnameTaken,
    FieldRefused,
    MalformedApiKey,
    NotLoggedIn,
    OwnerNotFound,
    Throttled,
    WrongCredentials,
)
from shared.messages.message import Command, Reply
from shared.messages.types import Moment


class ApplicationView(Reply):
    """A new application."""

    created: AlwaysTrue = True
    appname: str
    """Name of the application."""
    creationdate: date
    """Date of the creation, in UTC."""
    enddate: Moment
    """End of the application, a year after its creation: nobody can sign up or log in after it."""
    uuid: str
    """The API key in another notation. Keep it secret: each can be computed from the other."""
    apiKey: str  # noqa: N815 -- name of the API that Nest took over
    """API key of the application. Store it: Nest keeps only a keyed hash, and no other response shows it."""


class CreateApplication(
    Command,
    wire="auth.create-application",
    reply_sealed=True,
    reply=ApplicationView,
    refuses=(FieldRefused, OwnerNotFound, AppnameTaken),
):
    """Create an application."""

    owneruuid: OwnerId
    appname: Text
    """Name of the application, unique for its owner."""
    passwordless: bool = False
    """Whether ``/users/signin`` works for the application, with a user's ID and the API key instead of a password."""
    verified_only: bool = False
    """Whether only users with a proven address can log in."""


class ApplicationUpdatedView(Reply):
    """Settings of an application."""

    appname: str
    """Name of the application."""
    passwordless: bool
    """Whether ``/users/signin`` works for the application."""
    verified_only: bool
    """Whether only users with a proven address can log in."""


class UpdateApplication(
    Command,
    wire="auth.update-application",
    reply=ApplicationUpdatedView,
    refuses=(MalformedApiKey, ApplicationNotFound, FieldRefused, NotLoggedIn, WrongCredentials, Throttled),
):
    """Change settings of an application. Omitted ones do not change.

    Needs its owner's token in the header ``authorization``, or its owner's password.
    """

    apikey: ApiKey
    passwordless: bool | None = None
    """Whether ``/users/signin`` works for the application."""
    verified_only: bool | None = None
    """Whether only users with a proven address can log in. Existing tokens stay valid."""
    password: Password | None = None
    """Password of the owner. May be omitted with a token."""
    owner_token: OwnerToken = None


class ApplicationDeletedView(Reply):
    """Result of a deletion."""

    affectedRows: Literal[0, 1]  # noqa: N815 -- name of the API that Nest took over
    """1 if the application was deleted, 0 if no application has the API key."""
    message: str
    """The result in words."""


class DeleteApplication(
    Command,
    wire="auth.delete-application",
    reply=ApplicationDeletedView,
    refuses=(MalformedApiKey, FieldRefused, NotLoggedIn, WrongCredentials, Throttled),
):
    """Delete an application. Deletes its users too.

    Needs its owner's token in the header ``authorization``, or its owner's password. With the setting
    ``NEST_OLD_CLIENTS`` the API key is enough.
    """

    apikey: ApiKey
    password: Password | None = None
    """Password of the owner. May be omitted with a token."""
    current_password: Annotated[Password | None, Field(description="Another name of ``password``.")] = None
    owner_token: OwnerToken = None


class RemoveApplicationUsers(Command, wire="auth.remove-application-users"):
    """Delete the users of a deleted application. Sent by auth to itself."""

    application_id: str


class RemoveOwnerApplications(Command, wire="auth.remove-owner-applications"):
    """Delete the applications of a deleted owner. Sent by auth to itself."""

    owner_id: str
