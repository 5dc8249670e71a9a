"""Accounts: owners, their applications, and the users of those, who log in with passwords.

Field names, in requests and responses, are those of the HTTP API that Nest took over; not all are ``snake_case``.
"""

from datetime import date
from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.auth.errors import (
    AddressNotVerified,
    ApplicationEnded,
    ApplicationNotFound,
    ApplicationUserEnded,
    ApplicationUserNotActive,
    ApplicationUserNotFound,
    EmailTaken,
    FieldRefused,
    MalformedApiKey,
    NotLoggedIn,
    OwnerNotFound,
    PasswordRequired,
    Throttled,
    WrongCredentials,
)
from shared.messages.message import Command, Query, Reply
from shared.messages.types import MAX_ID, MaxPlain, PreferredLocale, Sealed, TypedAddress

MIN_PASSWORD: Final = 8
"""Minimum length of a new password (NIST SP 800-63B section 3.1.1.2)."""
MIN_PASSWORD_OF_OLD_CLIENTS: Final = 6
MAX_PASSWORD: Final = 1_024
"""Longer than any valid password, which has a refusal of its own."""
MAX_TOKEN: Final = 4_096
Password = Annotated[Sealed, MaxPlain(MAX_PASSWORD)]
Text = Annotated[str, Field(min_length=1, max_length=255)]
NewPassword = Annotated[Sealed, MaxPlain(MAX_PASSWORD), Field(description="Password of 8 to 255 characters.")]
# Sealed because it authorizes changes.
OwnerId = Annotated[Sealed, MaxPlain(MAX_ID), Field(description="ID of the owner.")]
ApiKey = Annotated[Sealed, MaxPlain(MAX_ID), Field(description="API key of the application.")]
CurrentPassword = Annotated[
    Password | None,
    Field(
        description="Current password. Needed for another password or a user's other address, except by old clients."
    ),
]
OwnerToken = Annotated[
    Annotated[Sealed, MaxPlain(MAX_TOKEN)] | None,
    Field(description="Token of the owner, from the header ``authorization``."),
]
UserToken = Annotated[Sealed, MaxPlain(MAX_TOKEN), Field(description="Token of the user.")]
AlwaysTrue = Annotated[Literal[True], Field(description="Always true.")]
INVALID_APPLICATION: Final = (FieldRefused, MalformedApiKey, ApplicationNotFound, ApplicationEnded)
_INVALID_USER: Final = (ApplicationUserNotActive, ApplicationUserEnded, AddressNotVerified)


def min_password_length(*, old_clients: bool) -> int:
    """Return the minimum length of a new password; ``old_clients`` is whether they are served."""
    return MIN_PASSWORD_OF_OLD_CLIENTS if old_clients else MIN_PASSWORD


class OwnerView(Reply):
    """An owner of applications."""

    firstname: str
    """First name."""
    lastname: str
    """Last name."""
    email: str
    """Email address."""
    uuid: str
    """ID of the owner. Keep it secret: it is enough to create applications."""


class OwnerWithTokenView(OwnerView):
    """An owner of applications, with a token to delete it."""

    deletion_token: str
    """Token for `DELETE /appowner/delete`, valid until the password changes."""


class LoggedInOwnerView(OwnerWithTokenView):
    """A logged-in owner of applications."""

    token: str
    """Token of the owner, valid for an hour and until the password changes. `POST /appowner/update` and
    `DELETE /applications/delete` take it in the header `authorization`, as `bearer <token>`."""


class OwnerFields(Command):
    """Fields shared by the commands that create and update an owner."""

    firstname: Text
    """First name."""
    lastname: Text
    """Last name."""
    email: TypedAddress
    """Email address. Stored in lower case."""
    password: NewPassword


class RegisterOwner(
    OwnerFields,
    wire="auth.register-owner",
    reply_sealed=True,
    reply=OwnerWithTokenView,
    refuses=(FieldRefused, EmailTaken, Throttled),
):
    """Create an owner."""


class GetOwner(Query, wire="auth.get-owner", reply_sealed=True, reply=OwnerView, refuses=(FieldRefused, OwnerNotFound)):
    """Get an owner. With the setting ``NEST_OLD_CLIENTS`` the response has ``deletion_token`` too."""

    uuid: OwnerId


class LogInOwner(
    Command,
    wire="auth.log-in-owner",
    reply_sealed=True,
    reply=LoggedInOwnerView,
    refuses=(FieldRefused, WrongCredentials, Throttled),
):
    """Log in an owner."""

    email: TypedAddress
    """Email address of the owner."""
    password: Password
    """Password of the owner."""


class OwnerUpdatedView(Reply):
    """Result of an update."""

    status: Literal[202] = 202
    """Always 202."""
    affectedRows: Literal[1] = 1  # noqa: N815 -- name of the API that Nest took over
    """Always 1."""


class UpdateOwner(
    OwnerFields,
    wire="auth.update-owner",
    reply=OwnerUpdatedView,
    refuses=(FieldRefused, OwnerNotFound, NotLoggedIn, WrongCredentials, Throttled, EmailTaken),
):
    """Update an owner. Replaces names and address, and the password if it is given.

    Needs the owner's token in the header ``authorization``, or the current password. Another password needs
    ``current_password``, and invalidates earlier tokens and deletion tokens. With the setting ``NEST_OLD_CLIENTS`` the
    ID is enough. A mail to the old address reports another address or password.
    """

    uuid: OwnerId
    password: Password | None = None  # type: ignore[assignment]
    """Current password, or a new one of 8 to 255 characters beside ``current_password``. May be omitted with a
    token."""
    current_password: CurrentPassword = None
    owner_token: OwnerToken = None


class OwnerDeletedView(Reply):
    """Result of a deletion."""

    affectedRows: Literal[0, 1]  # noqa: N815 -- name of the API that Nest took over
    """1 if the owner was deleted, 0 if the ID or the token is invalid."""
    insertId: Literal[0] = 0  # noqa: N815
    """Always 0."""
    warningStatus: Literal[0] = 0  # noqa: N815
    """Always 0."""


class DeleteOwner(Command, wire="auth.delete-owner", reply=OwnerDeletedView, refuses=(FieldRefused,)):
    """Delete an owner. Deletes its applications and their users too. An invalid token deletes nothing."""

    deletion_token: Annotated[Sealed, MaxPlain(MAX_TOKEN)]
    """Token from the registration or a login of the owner, since the last change of the password."""
    uuid: OwnerId


class ApplicationUserView(Reply):
    """A user of an application."""

    apikey: str
    """The API key of the request; in `/users/userdata` the user's ID in the format of an API key, which opens
    nothing."""
    uuid: str
    """ID of the user."""
    username: str
    """Name of the user."""
    email: str
    """Email address of the user."""
    creationdate: date
    """Date of the registration, in UTC."""
    enddate: date
    """Date on which the user expires, a year after the registration, in UTC."""
    active: bool
    """Whether the user can log in."""


class ApplicationUserDataView(ApplicationUserView):
    """A user of an application, as `/users/userdata` shows it."""

    verified: bool
    """Whether the person has proven to read the mailbox, with a mailed link."""


class SignUp(
    Command,
    wire="auth.sign-up",
    reply_sealed=True,
    reply=ApplicationUserView,
    refuses=(*INVALID_APPLICATION, EmailTaken, Throttled),
):
    """Create a user of an application. Mails a link that proves the address."""

    apikey: ApiKey
    username: Text
    """Name of the user."""
    email: TypedAddress
    """Email address of the user, unique in the application. Stored in lower case."""
    password: NewPassword
    locale: PreferredLocale = None
    """Language of mails to the user, if Nest has it (RFC 5646): ``de-AT``."""


class SignedInView(Reply):
    """A logged-in user of an application."""

    auth: AlwaysTrue = True
    token: str
    """Token of the user, valid for a day."""


class SignIn(
    Command,
    wire="auth.sign-in",
    reply_sealed=True,
    reply=SignedInView,
    refuses=(*INVALID_APPLICATION, PasswordRequired, ApplicationUserNotFound, *_INVALID_USER),
):
    """Log in a user of an application without a password.

    Works for applications that were created as ``passwordless``, until the user's password is changed or reset.
    """

    uuid: Annotated[Sealed, MaxPlain(MAX_ID)]
    """ID of the user."""
    apikey: ApiKey


class SignedInWithEmailView(SignedInView):
    """A logged-in user of an application."""

    uuid: str
    """ID of the user."""


class SignInWithEmail(
    Command,
    wire="auth.sign-in-with-email",
    reply_sealed=True,
    reply=SignedInWithEmailView,
    refuses=(*INVALID_APPLICATION, WrongCredentials, Throttled, *_INVALID_USER),
):
    """Log in a user of an application with email address and password."""

    apikey: ApiKey
    email: TypedAddress
    """Email address of the user."""
    password: Password
    """Password of the user."""


class CheckSignIn(Query, wire="auth.check-sign-in", reply_sealed=True, reply=SignedInView, refuses=(NotLoggedIn,)):
    """Check the token of an application's user."""

    token: UserToken


class GetApplicationUser(
    Query, wire="auth.get-application-user", reply_sealed=True, reply=ApplicationUserDataView, refuses=(NotLoggedIn,)
):
    """Get the user of a token."""

    token: UserToken


class ApplicationUserUpdatedView(Reply):
    """Result of an update."""

    done: AlwaysTrue = True
    username: str
    """Name of the user after the update."""
    email: str
    """Email address of the user after the update."""
    token: str | None = Field(default=None, exclude_if=lambda token: token is None)
    """New token, valid for a day; only if the request had a password and the user is active."""


class UpdateApplicationUser(
    Command,
    wire="auth.update-application-user",
    reply_sealed=True,
    personal=True,
    reply=ApplicationUserUpdatedView,
    refuses=(FieldRefused, NotLoggedIn, WrongCredentials, Throttled, EmailTaken),
):
    """Update the user of a token.

    Omitted fields do not change. Another password or address needs ``current_password``, except with the setting
    ``NEST_OLD_CLIENTS``. Another password and a deactivation invalidate all earlier tokens. A request with a password
    gets a new token. A mail to the old address reports another address or password.
    """

    token: UserToken
    username: Text | None = None
    """New name."""
    email: TypedAddress | None = None
    """New email address."""
    active: bool | None = None
    """Set to false to deactivate the user. A deactivated user cannot log in, nor undo it."""
    password: Password | None = None
    """New password of 8 to 255 characters."""
    current_password: CurrentPassword = None
