"""Personal data: find, export and erase a user across all services.

Exports and erasures are long-running processes: auth stores their progress, sends each service a command for its part,
and receives the results.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from shared.messages.auth import errors
from shared.messages.auth.users import UserView
from shared.messages.message import SERVICE_COMMANDS, Command, Part, Query, Reply
from shared.messages.types import MAX_LISTED, Many, MaxPlain, Moment, NonEmpty, Sealed, UserId

T = TypeVar("T")
Bounded = Annotated[dict[str, T], Field(max_length=MAX_LISTED)]
ProcessKind = Literal["export", "erasure"]
ServiceName = Literal["auth", "billing", "mailer", "news"]
"""A service that stores personal data."""
ThirdParty = Literal["mailchimp", "stripe"]
"""An external provider that must erase a person too."""


class FindUser(
    Query,
    wire="auth.find-user",
    audited=True,
    reply=UserView,
    refuses=(errors.IdentifierNotFound, errors.InvalidEmail, errors.InvalidPhoneNumber),
):
    """Find the user of an address or phone number."""

    identifier_type: Literal["email", "phone"]
    """Kind of ``identifier_value``."""
    identifier_value: Annotated[Sealed, MaxPlain(512)]
    """Email address, or international phone number."""


class ServicePartView(Part):
    """State of one service's part of an export or erasure."""

    service: ServiceName
    """Name of the service."""
    done_at: Moment | None
    """When the service finished its part; null before."""
    waits_for: ThirdParty | None = None
    """External provider that has not erased the person yet because it is unavailable; null if there is none."""
    waits_since: Moment | None = None
    """When the service began to wait for the provider; null if it does not."""
    reason: str | None = None
    """Error of the latest attempt with the provider, without personal data."""


class UserProcessView(Reply):
    """An export or erasure."""

    id: str
    """ID of the export or erasure."""
    kind: ProcessKind
    """``export`` or ``erasure``."""
    user_id: str
    """ID of the user."""
    state: Literal["running", "done"]
    """``done`` once all services have finished their parts."""
    requested_at: Moment
    """When it was requested."""
    finished_at: Moment | None
    """When the last service finished; null while it is running."""
    expires_at: Moment | None
    """When an exported document is deleted; null while it is running."""
    services: Many[ServicePartView]
    """State by service."""


class ExportUser(Command, wire="auth.export-user", reply=UserProcessView, refuses=(errors.UserNotFound,)):
    """Start an export of all data about a user."""

    user_id: UserId


class EraseUser(Command, wire="auth.erase-user", reply=UserProcessView, refuses=(errors.UserNotFound,)):
    """Start the erasure of a user.

    Logs the user out immediately and removes all data about the user. If the user is being erased, or was, returns that
    erasure.
    """

    user_id: UserId
    delete_stripe_customer: bool = False
    """Whether to delete the customer in Stripe, which ends its subscriptions. By default Stripe keeps the customer, and
    subscriptions go on."""


class GetUserProcess(Query, wire="auth.get-user-process", reply=UserProcessView, refuses=(errors.UserProcessNotFound,)):
    """Get the state of an export or erasure."""

    process_id: NonEmpty
    """ID of the export or erasure."""


class UserExportView(Reply):
    """A page of an exported document."""

    user_id: str
    """ID of the user."""
    requested_at: Moment
    """When the export was requested."""
    finished_at: Moment
    """When the export finished."""
    services: Bounded[Bounded[Annotated[list[Bounded[Any]], Field(max_length=MAX_LISTED)]]]
    """Stored documents by service and collection, without secrets. A list may continue in the next page."""
    next_cursor: int | None
    """``cursor`` of the next page; null on the last one, which usually is the first."""


class GetUserExport(
    Query,
    wire="auth.get-user-export",
    reply_sealed=True,
    audited=True,
    reply=UserExportView,
    refuses=(errors.UserProcessNotFound, errors.UserExportNotFinished),
):
    """Get a finished export, in pages."""

    process_id: NonEmpty
    """ID of the export."""
    cursor: Annotated[int, Field(ge=0)] = 0
    """``next_cursor`` of the previous page."""


class ContinueUserProcess(Command, wire="auth.continue-user-process"):
    """Order unfinished parts again, an hour after the last time. The key is the process's ID."""

    process_id: str


class UserDataCommand(Command):
    """Fields shared by the commands for one service's part. The key is the user's ID."""

    process_id: str
    user_id: str
    identifiers: Sealed
    """JSON list of ``[type, value]``: all current and former addresses and numbers of the user."""


class ExportUserData(UserDataCommand):
    """Export the service's data about a user, as one AddExportedPart per message."""

    run: int
    """Number of times that the whole part was ordered, from 1."""
    number: int = 0
    """Index of the next exported part."""
    holding: int = 0
    """Index of the collection to continue with."""
    after: str | None = None
    """Last exported ID in that collection."""


class EraseUserData(UserDataCommand):
    """Erase the service's data about a user, then send ConfirmErasure."""

    delete_stripe_customer: bool = False
    attempt: int = 1
    """Number of the attempt, from 1; incremented while an external provider is unavailable."""
    again: bool = False
    """Whether this is the second pass, 25 hours later, for messages that were in progress at the first. It is not
    confirmed."""


class ExportUserFromAuth(ExportUserData, wire="auth.export-user-from-auth"):
    """Export auth's data about a user."""


class EraseUserFromAuth(EraseUserData, wire="auth.erase-user-from-auth"):
    """Erase auth's data about a user, and the dead letters of all services."""

    letters_from: str | None = None
    """Position among the dead letters to continue from."""


class ExportUserFromBilling(ExportUserData, wire="billing.export-user-from-billing"):
    """Export billing's data about a user."""


class EraseUserFromBilling(EraseUserData, wire="billing.erase-user-from-billing"):
    """Erase billing's data about a user."""


class ExportUserFromMailer(ExportUserData, wire="mailer.export-user-from-mailer"):
    """Export mailer's data about a user."""


class EraseUserFromMailer(EraseUserData, wire="mailer.erase-user-from-mailer"):
    """Erase mailer's data about a user."""


class ExportUserFromNews(ExportUserData, wire="news.export-user-from-news"):
    """Export news's data about a user."""


class EraseUserFromNews(EraseUserData, wire="news.erase-user-from-news"):
    """Erase news's data about a user."""


class AddExportedPart(Command, wire="auth.add-exported-part", topic=SERVICE_COMMANDS):
    """Add a part of a service's data to an export. The key is the process's ID."""

    process_id: str
    holder: ServiceName
    run: int
    """See ExportUserData."""
    number: int
    collection: str
    documents: Sealed
    """JSON list of objects, 256 KiB at most."""
    last: bool
    """Whether this is the service's last part."""


class ConfirmErasure(Command, wire="auth.confirm-erasure", topic=SERVICE_COMMANDS):
    """Confirm that a service has erased its data about a user. The key is the process's ID."""

    process_id: str
    holder: ServiceName


class NoteErasureWait(Command, wire="auth.note-erasure-wait", topic=SERVICE_COMMANDS):
    """Record that a service waits for an unavailable external provider. The key is the process's ID."""

    process_id: str
    holder: ServiceName
    waits_for: ThirdParty
    reason: str
    """Error of the latest attempt, without personal data."""
