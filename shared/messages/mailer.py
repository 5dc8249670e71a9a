"""What mailer is ordered and asked, and what it announces: mail and marketing consent."""

from typing import Literal

from shared.messages.message import Command, Event, Moment, Query, Reply, Sealed

Template = Literal[
    "magic-link",
    "trial-magic-link",
    "welcome",
    "welcome-trial",
    "duplicate-subscription",
    "session-theft",
]
ConsentLevel = Literal["general", "none"]


class SendMail(Command, wire="mailer.send-mail"):
    """Render a template and hand the mail over. No reply body."""

    template: Template
    to: Sealed
    """The address."""
    variables: Sealed
    """A JSON object: what the template shows."""
    client_id: str | None = None
    """Whose product name and looks the mail wears."""
    order_id: str | None = None
    """The id of the first order, on a repeated attempt; the Message-ID is made from it."""
    attempt: int = 1


class RecordMarketingConsent(Command, wire="mailer.record-marketing-consent"):
    """Store what an existing user consents to. No reply body."""

    user_id: str
    level: ConsentLevel
    source: str
    """Where the choice was made: ``user``, ``internal``."""


class GetMarketingConsent(Query, wire="mailer.get-marketing-consent"):
    """Reply: MarketingConsentView. Refused: ``awaiting_consent``."""

    user_id: str


class MarketingConsentView(Reply):
    """What a user consents to."""

    level: ConsentLevel


class MarketingConsentChanged(Event, wire="mailer.marketing-consent-changed"):
    """A user consented to something else than before."""

    user_id: str
    level: ConsentLevel
    source: str
    at: Moment


class MailHandedOver(Event, wire="mailer.mail-handed-over"):
    """The mail server has taken a mail."""

    delivery_id: str
    template: Template
    at: Moment
