"""What mail providers tell of a mail after they took it: it arrived, it came back, it was called spam."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.mailer.mails import Template
from shared.messages.message import Command, Event, Moment

NoticeKind = Literal["delivered", "bounced", "complained"]
OrderId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Status = Annotated[str, Field(pattern=r"^[245]\.[0-9]{1,3}\.[0-9]{1,3}$")]
MAX_REASON: Final = 300


class RecordMailNotice(Command, wire="mailer.record-mail-notice", personal=True):
    """Bring a delivery up to date, and write no more to an address where mail does no good."""

    order_id: OrderId
    """The id of the mail's order: the left side of its Message-ID."""
    notice: NoticeKind
    status: Status | None = None
    """The enhanced status code (RFC 3463), if the provider gave one: ``5.1.1``."""
    reason: Annotated[str, Field(max_length=MAX_REASON)] = ""
    """The provider's words, without addresses."""
    attempt: int = 1
    """Counts from 1: a notice may be here before our own mark."""


class MailBounced(Event, wire="mailer.mail-bounced"):
    """A mail that a server had taken came back."""

    delivery_id: str
    template: Template
    status: str | None
    at: Moment


class AddressSuppressed(Event, wire="mailer.address-suppressed"):
    """An address gets nothing any more but what is asked for at it."""

    delivery_id: str
    """The mail that showed it."""
    cause: Literal["bounce", "complaint"]
    at: Moment
