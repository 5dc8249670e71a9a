"""What auth is ordered and asked about owners, their applications and the users of those.

The fields' names are those of the HTTP bodies, which are older than Nest; so is their spelling in answers.
"""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from shared.messages.auth.errors import (
    ApplicationEnded,
    ApplicationNotFound,
    ApplicationUserEnded,
    ApplicationUserNotActive,
    ApplicationUserNotFound,
    AppnameTaken,
    EmailTaken,
    FieldRefused,
    MalformedApiKey,
    NotLoggedIn,
    OwnerNotFound,
    PasswordRequired,
    Throttled,
    WrongCredentials,
)
from shared.messages.message import Command, Moment, Query, Reply, Sealed

Text = Annotated[str, Field(min_length=1, max_length=255)]


class OwnerView(Reply):
    """An owner."""

    firstname: str
    lastname: str
    email: str
    uuid: str


class OwnerWithTokenView(OwnerView):
    """An owner, with what permits the deletion for a day."""

    deletion_token: str


class RegisterOwner(
    Command,
    wire="auth.register-owner",
    reply_sealed=True,
    reply=OwnerWithTokenView,
    refuses=(
        FieldRefused,
        EmailTaken,
    ),
):
    """Make an owner of applications."""

    firstname: Text
    lastname: Text
    email: str
    password: Sealed


class GetOwner(
    Query,
    wire="auth.get-owner",
    reply_sealed=True,
    reply=OwnerView,
    refuses=(
        FieldRefused,
        OwnerNotFound,
    ),
):
    """Who an owner is. Old clients get an OwnerWithTokenView.

    An owner's id travels sealed: whoever knows it may change the owner.
    """

    uuid: Sealed


class LogInOwner(
    Command,
    wire="auth.log-in-owner",
    reply_sealed=True,
    reply=OwnerWithTokenView,
    refuses=(
        FieldRefused,
        WrongCredentials,
        Throttled,
    ),
):
    """Log an owner in."""

    email: str
    password: Sealed


class OwnerUpdatedView(Reply):
    """An owner was changed."""

    status: Literal[202] = 202
    affectedRows: Literal[1] = 1  # noqa: N815 -- older than Nest


class UpdateOwner(
    Command,
    wire="auth.update-owner",
    reply=OwnerUpdatedView,
    refuses=(
        FieldRefused,
        OwnerNotFound,
        EmailTaken,
    ),
):
    """Change all that is known of an owner."""

    uuid: Sealed
    firstname: Text
    lastname: Text
    email: str
    password: Sealed


class OwnerDeletedView(Reply):
    """Whether an owner was deleted."""

    affectedRows: Literal[0, 1]  # noqa: N815 -- older than Nest
    insertId: Literal[0] = 0  # noqa: N815
    warningStatus: Literal[0] = 0  # noqa: N815


class DeleteOwner(Command, wire="auth.delete-owner", reply=OwnerDeletedView, refuses=(FieldRefused,)):
    """Delete an owner with all applications and their users."""

    deletion_token: Sealed
    uuid: Sealed


class RemoveOwnerApplications(Command, wire="auth.remove-owner-applications"):
    """Delete the applications of an owner who is deleted; auth says it to itself."""

    owner_id: str


class ApplicationView(Reply):
    """An application that has just been made; nothing else ever shows its id."""

    created: Literal[True] = True
    appname: str
    creationdate: date
    enddate: Moment
    uuid: str
    apiKey: str  # noqa: N815 -- older than Nest


class CreateApplication(
    Command,
    wire="auth.create-application",
    reply_sealed=True,
    reply=ApplicationView,
    refuses=(
        FieldRefused,
        OwnerNotFound,
        AppnameTaken,
    ),
):
    """Make an application."""

    owneruuid: Sealed
    appname: Text
    passwordless: bool = False
    """Whether a user's id and the API key are enough to log in."""


class ApplicationDeletedView(Reply):
    """Whether an application was deleted."""

    affectedRows: Literal[0, 1]  # noqa: N815 -- older than Nest
    message: str


class DeleteApplication(
    Command, wire="auth.delete-application", reply=ApplicationDeletedView, refuses=(MalformedApiKey,)
):
    """Delete an application with all its users."""

    apikey: Sealed


class RemoveApplicationUsers(Command, wire="auth.remove-application-users"):
    """Delete the users of an application that is deleted; auth says it to itself."""

    application_id: str


class ApplicationUserView(Reply):
    """A user of an application."""

    apikey: str
    uuid: str
    username: str
    email: str
    creationdate: date
    enddate: date
    active: bool


class SignUp(
    Command,
    wire="auth.sign-up",
    reply_sealed=True,
    reply=ApplicationUserView,
    refuses=(
        FieldRefused,
        MalformedApiKey,
        ApplicationNotFound,
        ApplicationEnded,
        EmailTaken,
    ),
):
    """Make a user of an application."""

    apikey: Sealed
    username: Text
    email: str
    password: Sealed


class SignedInView(Reply):
    """Somebody is logged in."""

    auth: Literal[True] = True
    token: str


class SignIn(
    Command,
    wire="auth.sign-in",
    reply_sealed=True,
    reply=SignedInView,
    refuses=(
        FieldRefused,
        MalformedApiKey,
        ApplicationNotFound,
        ApplicationEnded,
        PasswordRequired,
        ApplicationUserNotFound,
        ApplicationUserNotActive,
        ApplicationUserEnded,
    ),
):
    """Log a user of an application in who shows no password."""

    uuid: Sealed
    apikey: Sealed


class SignedInWithEmailView(SignedInView):
    """Somebody has logged in, and learns their id."""

    uuid: str


class SignInWithEmail(
    Command,
    wire="auth.sign-in-with-email",
    reply_sealed=True,
    reply=SignedInWithEmailView,
    refuses=(
        FieldRefused,
        MalformedApiKey,
        ApplicationNotFound,
        ApplicationEnded,
        WrongCredentials,
        Throttled,
        ApplicationUserNotActive,
        ApplicationUserEnded,
    ),
):
    """Log a user of an application in."""

    apikey: Sealed
    email: str
    password: Sealed


class CheckSignIn(Query, wire="auth.check-sign-in", reply_sealed=True, reply=SignedInView, refuses=(NotLoggedIn,)):
    """Is this token good?"""

    token: Sealed


class GetApplicationUser(
    Query, wire="auth.get-application-user", reply_sealed=True, reply=ApplicationUserView, refuses=(NotLoggedIn,)
):
    """Whose token is this?"""

    token: Sealed


class ApplicationUserUpdatedView(Reply):
    """A user of an application was changed."""

    done: Literal[True] = True
    username: str
    email: str


class UpdateApplicationUser(
    Command,
    wire="auth.update-application-user",
    personal=True,
    reply=ApplicationUserUpdatedView,
    refuses=(
        FieldRefused,
        NotLoggedIn,
        EmailTaken,
    ),
):
    """Change what is given of the user whose token this is."""

    token: Sealed
    username: Text | None = None
    email: str | None = None
    active: bool | None = None
    password: Sealed | None = None
