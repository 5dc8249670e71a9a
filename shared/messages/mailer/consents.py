"""Marketing consent: a user's choice, and its transfer to the audience provider (Mailchimp)."""

from typing import Annotated, Literal

from pydantic import Field

from shared.messages.mailer.errors import AwaitingConsent
from shared.messages.message import Command, Event, Query, Reply
from shared.messages.types import Moment, Sealed

ConsentLevel = Annotated[
    Literal["general", "none"],
    Field(description="``general`` for news and offers, ``none`` for necessary mails only."),
]


class MarketingConsentView(Reply):
    """A user's marketing consent."""

    level: ConsentLevel


class GetMarketingConsent(
    Query, wire="mailer.get-marketing-consent", reply=MarketingConsentView, refuses=(AwaitingConsent,)
):
    """Get the marketing consent of an existing user. Sent by auth."""

    user_id: str


class RecordMarketingConsent(Command, wire="mailer.record-marketing-consent"):
    """Record the choice of an existing user."""

    user_id: str
    level: ConsentLevel
    source: str
    """Origin of the choice: ``user``, ``internal`` or ``unsubscribe-link``."""


# The ordering key is the user's ID.
class CarryMarketingConsent(Command, wire="mailer.carry-marketing-consent"):
    """Send the user's latest choice to the audience provider."""

    user_id: str
    consent_version: Annotated[int, Field(ge=1)]
    """Number of the user's choice that caused the command. The latest one is sent."""
    address: Sealed | None
    """A verified email address of the user; None if there is none."""
    ordered_at: Moment
    """When the command was first sent. It is retried for some days."""
    attempt: Annotated[int, Field(ge=1)] = 1
    """Number of the attempt, from 1."""


class MarketingConsentChanged(Event, wire="mailer.marketing-consent-changed"):
    """A user's marketing consent changed."""

    user_id: str
    level: ConsentLevel
    source: str
    """See RecordMarketingConsent."""
    at: Moment
