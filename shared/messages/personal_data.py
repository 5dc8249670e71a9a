"""What is ordered and asked about whole people: found, exported, erased; of auth by operators, of services by auth.

An export and an erasure are processes: auth keeps how far they are, orders each service's part, and hears from it,
however long that takes.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
)

from shared.errors import NotFound
from shared.messages.auth.errors import InvalidEmail, InvalidPhoneNumber, UserExportNotFinished
from shared.messages.auth.users import UserView
from shared.messages.message import Command, Moment, NonEmpty, Part, Query, Reply, Sealed

ProcessKind = Literal["export", "erasure"]
ServiceName = Literal["auth", "billing", "mailer", "news"]
"""A service that holds something on people."""
ThirdParty = Literal["mailchimp", "stripe"]
"""Somebody outside of Nest who must forget a person too."""


class FindUser(
    Query,
    wire="auth.find-user",
    audited=True,
    reply=UserView,
    refuses=(
        NotFound,
        InvalidEmail,
        InvalidPhoneNumber,
    ),
):
    """Whose an address or a number is now."""

    identifier_type: Literal["email", "phone"]
    identifier_value: Sealed
    """As people write it."""


class ServicePartView(Part):
    """How far a service is with its part of a process."""

    service: ServiceName
    done_at: Moment | None
    waits_for: ThirdParty | None = None
    """Who could not be brought to forget the person so far; null where nobody is in the way that we know of."""
    waits_since: Moment | None = None
    reason: str | None = None
    """Why not, the last time that it was tried; nothing of the person is in it."""


class UserProcessView(Reply):
    """An export or an erasure."""

    id: str
    kind: ProcessKind
    user_id: str
    state: Literal["running", "done"]
    requested_at: Moment
    finished_at: Moment | None
    expires_at: Moment | None
    """When the document of an export is removed; null before it is finished."""
    services: tuple[ServicePartView, ...]


class ExportUser(Command, wire="auth.export-user", reply=UserProcessView, refuses=(NotFound,)):
    """Begin to collect all that every service holds on a user."""

    user_id: NonEmpty


class EraseUser(Command, wire="auth.erase-user", reply=UserProcessView, refuses=(NotFound,)):
    """Begin to remove a user everywhere; they are logged out at once.

    Of one that is being erased already, or was, the process is told.
    """

    user_id: NonEmpty
    delete_stripe_customer: bool = False
    """Whether Stripe is to forget the customer too, which ends its subscriptions. Else it keeps what it has, and goes
    on collecting what is subscribed."""


class GetUserProcess(Query, wire="auth.get-user-process", reply=UserProcessView, refuses=(NotFound,)):
    """How far an export or an erasure is."""

    process_id: NonEmpty


class UserExportView(Reply):
    """A page of all that Nest holds on a user."""

    user_id: str
    requested_at: Moment
    finished_at: Moment
    services: dict[str, dict[str, list[dict[str, Any]]]]
    """By service and collection what is held, as it is stored, without secrets; lists go on in the next page."""
    next_cursor: int | None
    """Null on the last page, which for most people is the first."""


class GetUserExport(
    Query,
    wire="auth.get-user-export",
    reply_sealed=True,
    audited=True,
    reply=UserExportView,
    refuses=(
        NotFound,
        UserExportNotFinished,
    ),
):
    """The document of a finished export, a page at a time."""

    process_id: NonEmpty
    cursor: Annotated[int, Field(ge=0)] = 0
    """``next_cursor`` of the page before."""


class ContinueUserProcess(Command, wire="auth.continue-user-process"):
    """Order the parts again that no service has done for an hour. ``key`` is the user's id."""

    process_id: str


class UserDataCommand(Command):
    """An order to one service about a user. ``key`` is the user's id."""

    process_id: str
    user_id: str
    identifiers: Sealed
    """The JSON of a list of ``[type, value]``: what the user is, or was, known by."""


class ExportUserData(UserDataCommand):
    """Hand over what is held on a user. Answered by AddExportedPart, as often as there are parts."""

    run: int
    """Counts from 1 how often the whole of it was ordered."""
    number: int = 0
    """Of the part to be handed over."""
    holding: int = 0
    """Where to go on: among the collections, and in it after this id."""
    after: str | None = None


class EraseUserData(UserDataCommand):
    """Remove what is held on a user. Answered by ConfirmErasure."""

    delete_stripe_customer: bool = False
    attempt: int = 1
    """Grows while somebody outside of Nest can't be asked."""
    again: bool = False
    """A day later, for what was on its way meanwhile; not answered."""


class ExportUserFromAuth(ExportUserData, wire="auth.export-user-from-auth"):
    """Auth's own part."""


class EraseUserFromAuth(EraseUserData, wire="auth.erase-user-from-auth"):
    """Auth's own part, and the dead letters of all services."""

    letters_from: str | None = None
    """Where to go on among the dead letters."""


class AddExportedPart(Command, wire="auth.add-exported-part"):
    """A piece of what a service holds on a user. ``key`` is the process's id."""

    process_id: str
    holder: ServiceName
    run: int
    number: int
    collection: str
    documents: Sealed
    """The JSON of a list of objects, 256 KiB at most."""
    last: bool


class ConfirmErasure(Command, wire="auth.confirm-erasure"):
    """A service holds nothing on a user any more. ``key`` is the process's id."""

    process_id: str
    holder: ServiceName


class NoteErasureWait(Command, wire="auth.note-erasure-wait"):
    """A service can't be done before somebody outside of Nest is, who can't be asked now.

    ``key`` is the process's id.
    """

    process_id: str
    holder: ServiceName
    waits_for: ThirdParty
    reason: str


class ExportUserFromBilling(ExportUserData, wire="billing.export-user-from-billing"):
    """Hand over what billing holds on a user."""


class EraseUserFromBilling(EraseUserData, wire="billing.erase-user-from-billing"):
    """Remove what billing holds on a user."""


class ExportUserFromMailer(ExportUserData, wire="mailer.export-user-from-mailer"):
    """Hand over what the mailer holds on a user."""


class EraseUserFromMailer(EraseUserData, wire="mailer.erase-user-from-mailer"):
    """Remove what the mailer holds on a user."""


class ExportUserFromNews(ExportUserData, wire="news.export-user-from-news"):
    """Hand over what news holds on a user."""


class EraseUserFromNews(EraseUserData, wire="news.erase-user-from-news"):
    """Remove what news holds on a user."""
