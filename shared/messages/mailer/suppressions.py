"""Suppression list: addresses that get only mails requested at them, after a bounce or complaint."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from shared.errors import InvalidCursor
from shared.messages.mailer.deliveries import Recipient
from shared.messages.mailer.errors import RecipientComplained, SuppressionNotFound
from shared.messages.mailer.mails import Template
from shared.messages.message import Command, Event, OperatorList, Reply
from shared.messages.types import Cursor, CursorText, Limit, Many, Moment, NextCursor, NonEmpty, Since, Until

Cause = Literal["bounce", "complaint"]
NoticeKind = Literal["delivered", "bounced", "complained"]
OrderId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""ID of the mail's first SendMail command: the local part of its Message-ID."""
ProviderId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]{15,127}$")]
"""ID that a provider gave to a mail: in its reply to the content, and before the ``@`` of the Message-ID."""
Status = Annotated[str, Field(pattern=r"^[245]\.[0-9]{1,3}\.[0-9]{1,3}$")]
"""An enhanced status code (RFC 3463), for example ``5.1.1``."""
MAX_REASON: Final = 300
"""Maximum length of a reason, in characters."""


class SuppressionView(Reply):
    """An entry of the suppression list. Only a hash of the address is stored, so it is not shown."""

    delivery_id: str
    """ID of the delivery that bounced or was reported as spam."""
    cause: Cause
    """``bounce`` for a permanent failure, ``complaint`` for a report as spam."""
    since: Moment
    """When the address was added."""
    template: str | None
    """Template of that mail; null if its delivery is no longer stored."""
    reason: str | None
    """The provider's text about that mail; null if there is none."""


class SuppressionsView(Reply):
    """A page of the suppression list."""

    suppressions: Many[SuppressionView]
    """The entries, newest first."""
    next_cursor: NextCursor


class ListSuppressions(
    OperatorList, wire="mailer.list-suppressions", audited=True, reply=SuppressionsView, refuses=(InvalidCursor,)
):
    """List the suppressed addresses."""

    recipient: Recipient | None = None
    """Only the entry of this email address."""
    cause: Cause | None = None
    """Only entries with this cause."""
    since: Since = None
    until: Until = None
    limit: Limit = 100
    cursor: Cursor[CursorText] = None


class LiftSuppression(
    Command,
    wire="mailer.lift-suppression",
    audited=True,
    reply=SuppressionView,
    refuses=(SuppressionNotFound, RecipientComplained),
):
    """Remove an address from the suppression list.

    Takes ``recipient`` or ``delivery_id``, and returns the removed entry.
    """

    recipient: Recipient | None = None
    """The email address."""
    delivery_id: NonEmpty | None = None
    """ID of the delivery that bounced or was reported as spam."""
    although_complained: bool = False
    """Whether to remove an address that reported a mail as spam. Set it only if the recipient asked for mails again."""

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.recipient is None) == (self.delivery_id is None):
            raise ValueError("give either recipient or delivery_id")
        return self


class MailNoticeCommand(Command):
    """Fields shared by the commands that record the outcome of a mail."""

    notice: NoticeKind
    status: Status | None = None
    reason: Annotated[str, Field(max_length=MAX_REASON)] = ""
    """The provider's text, without addresses."""
    attempt: int = 1
    """Number of the attempt, from 1. The notice may arrive before the delivery is marked as handed over."""


class RecordMailNotice(MailNoticeCommand, wire="mailer.record-mail-notice", personal=True):
    """Update a delivery, and suppress its address after a permanent bounce or a complaint."""

    order_id: OrderId


class RecordProviderNotice(MailNoticeCommand, wire="mailer.record-provider-notice", personal=True):
    """Like ``RecordMailNotice``, for a mail whose Message-ID was replaced by the provider."""

    provider_id: ProviderId


class MailBounced(Event, wire="mailer.mail-bounced"):
    """A mail was returned after a server had accepted it."""

    delivery_id: str
    template: Template
    status: str | None
    at: Moment


class SuppressionEvent(Event):
    """Fields shared by the events of the suppression list."""

    delivery_id: str
    """ID of the delivery that bounced or was reported as spam."""
    cause: Cause
    at: Moment


class AddressSuppressed(SuppressionEvent, wire="mailer.address-suppressed"):
    """An address was added to the suppression list: it gets only mails that are requested at it."""


class SuppressionLifted(SuppressionEvent, wire="mailer.suppression-lifted"):
    """An address was removed from the suppression list."""
