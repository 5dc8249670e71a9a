"""Mail reports: delivery, bounce and complaint notices from mail servers and providers."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.mailer.mails import Template
from shared.messages.message import Command, Event, Moment

NoticeKind = Literal["delivered", "bounced", "complained"]
OrderId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""ID of the mail's first SendMail command: the local part of its Message-ID."""
Status = Annotated[str, Field(pattern=r"^[245]\.[0-9]{1,3}\.[0-9]{1,3}$")]
"""An enhanced status code (RFC 3463), for example ``5.1.1``."""
MAX_REASON: Final = 300
"""Maximum length of a reason, in characters."""


class RecordMailNotice(Command, wire="mailer.record-mail-notice", personal=True):
    """Update a delivery, and suppress its address after a permanent bounce or a complaint."""

    order_id: OrderId
    notice: NoticeKind
    status: Status | None = None
    reason: Annotated[str, Field(max_length=MAX_REASON)] = ""
    """The provider's text, without addresses."""
    attempt: int = 1
    """Number of the attempt, from 1. The notice may arrive before the delivery is marked as handed over."""


class MailBounced(Event, wire="mailer.mail-bounced"):
    """A mail was returned after a server had accepted it."""

    delivery_id: str
    template: Template
    status: str | None
    at: Moment


class AddressSuppressed(Event, wire="mailer.address-suppressed"):
    """An address was added to the suppression list: it gets only mails that are requested at it."""

    delivery_id: str
    """Delivery of the mail that bounced or was reported as spam."""
    cause: Literal["bounce", "complaint"]
    at: Moment
