"""What auth is ordered and asked about owners, their applications and the users of those.

The fields' names are those of the HTTP bodies, which are older than Nest; so is their spelling in answers.
"""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from shared.messages.message import Command, Moment, Query, Reply, Sealed

Text = Annotated[str, Field(min_length=1, max_length=255)]


class RegisterOwner(Command, wire="auth.register-owner", reply_sealed=True):
    """Make an owner of applications. Reply: OwnerWithTokenView. Refused: ``validation_failed``, ``email_taken``."""

    firstname: Text
    lastname: Text
    email: str
    password: Sealed


class GetOwner(Query, wire="auth.get-owner", reply_sealed=True):
    """Who an owner is. Reply: OwnerView. Refused: ``validation_failed``, ``owner_not_found``.

    Old clients get an OwnerWithTokenView.

    An owner's id travels sealed: whoever knows it may change the owner.
    """

    uuid: Sealed


class LogInOwner(Command, wire="auth.log-in-owner", reply_sealed=True):
    """Log an owner in. Reply: OwnerWithTokenView.

    Refused: ``validation_failed``, ``wrong_credentials``, ``throttled``.
    """

    email: str
    password: Sealed


class UpdateOwner(Command, wire="auth.update-owner"):
    """Change all that is known of an owner. Reply: OwnerUpdatedView.

    Refused: ``validation_failed``, ``owner_not_found``, ``email_taken``.
    """

    uuid: Sealed
    firstname: Text
    lastname: Text
    email: str
    password: Sealed


class DeleteOwner(Command, wire="auth.delete-owner"):
    """Delete an owner with all applications and their users. Reply: OwnerDeletedView.

    Refused: ``validation_failed``.
    """

    deletion_token: Sealed
    uuid: Sealed


class RemoveOwnerApplications(Command, wire="auth.remove-owner-applications"):
    """Delete the applications of an owner who is deleted; auth says it to itself. No reply body."""

    owner_id: str


class CreateApplication(Command, wire="auth.create-application", reply_sealed=True):
    """Make an application. Reply: ApplicationView.

    Refused: ``validation_failed``, ``owner_not_found``, ``appname_taken``.
    """

    owneruuid: Sealed
    appname: Text
    passwordless: bool = False
    """Whether a user's id and the API key are enough to log in."""


class DeleteApplication(Command, wire="auth.delete-application"):
    """Delete an application with all its users. Reply: ApplicationDeletedView. Refused: ``malformed_api_key``."""

    apikey: Sealed


class RemoveApplicationUsers(Command, wire="auth.remove-application-users"):
    """Delete the users of an application that is deleted; auth says it to itself. No reply body."""

    application_id: str


class SignUp(Command, wire="auth.sign-up", reply_sealed=True):
    """Make a user of an application. Reply: ApplicationUserView.

    Refused: ``validation_failed``, ``malformed_api_key``, ``application_not_found``, ``application_ended``,
    ``email_taken``.
    """

    apikey: Sealed
    username: Text
    email: str
    password: Sealed


class SignIn(Command, wire="auth.sign-in", reply_sealed=True):
    """Log a user of an application in who shows no password. Reply: SignedInView.

    Refused: ``validation_failed``, ``malformed_api_key``, ``application_not_found``, ``application_ended``,
    ``password_required``, ``application_user_not_found``, ``application_user_not_active``, ``application_user_ended``.
    """

    uuid: Sealed
    apikey: Sealed


class SignInWithEmail(Command, wire="auth.sign-in-with-email", reply_sealed=True):
    """Log a user of an application in. Reply: SignedInWithEmailView.

    Refused: ``validation_failed``, ``malformed_api_key``, ``application_not_found``, ``application_ended``,
    ``wrong_credentials``, ``throttled``, ``application_user_not_active``, ``application_user_ended``.
    """

    apikey: Sealed
    email: str
    password: Sealed


class CheckSignIn(Query, wire="auth.check-sign-in", reply_sealed=True):
    """Is this token good? Reply: SignedInView. Refused: ``not_logged_in``."""

    token: Sealed


class GetApplicationUser(Query, wire="auth.get-application-user", reply_sealed=True):
    """Whose token is this? Reply: ApplicationUserView. Refused: ``not_logged_in``."""

    token: Sealed


class UpdateApplicationUser(Command, wire="auth.update-application-user", personal=True):
    """Change what is given of the user whose token this is. Reply: ApplicationUserUpdatedView.

    Refused: ``validation_failed``, ``not_logged_in``, ``email_taken``.
    """

    token: Sealed
    username: Text | None = None
    email: str | None = None
    active: bool | None = None
    password: Sealed | None = None


class OwnerView(Reply):
    """An owner."""

    firstname: str
    lastname: str
    email: str
    uuid: str


class OwnerWithTokenView(OwnerView):
    """An owner, with what permits the deletion for a day."""

    deletion_token: str


class OwnerUpdatedView(Reply):
    """An owner was changed."""

    status: Literal[202] = 202
    affectedRows: Literal[1] = 1  # noqa: N815 -- older than Nest


class OwnerDeletedView(Reply):
    """Whether an owner was deleted."""

    affectedRows: Literal[0, 1]  # noqa: N815 -- older than Nest
    insertId: Literal[0] = 0  # noqa: N815
    warningStatus: Literal[0] = 0  # noqa: N815


class ApplicationView(Reply):
    """An application that has just been made; nothing else ever shows its id."""

    created: Literal[True] = True
    appname: str
    creationdate: date
    enddate: Moment
    uuid: str
    apiKey: str  # noqa: N815 -- older than Nest


class ApplicationDeletedView(Reply):
    """Whether an application was deleted."""

    affectedRows: Literal[0, 1]  # noqa: N815 -- older than Nest
    message: str


class ApplicationUserView(Reply):
    """A user of an application."""

    apikey: str
    uuid: str
    username: str
    email: str
    creationdate: date
    enddate: date
    active: bool


class SignedInView(Reply):
    """Somebody is logged in."""

    auth: Literal[True] = True
    token: str


class SignedInWithEmailView(SignedInView):
    """Somebody has logged in, and learns their id."""

    uuid: str


class ApplicationUserUpdatedView(Reply):
    """A user of an application was changed."""

    done: Literal[True] = True
    username: str
    email: str
