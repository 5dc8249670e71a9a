"""How does a marketing consent reach the audience provider? mailer asks auth for the address, and then carries it."""

from typing import Annotated, Literal

from pydantic import Field

from shared.messages.mailer.errors import AwaitingConsent
from shared.messages.message import Command, Event, Moment, Query, Reply, Sealed


class CarryMarketingConsent(Command, wire="mailer.carry-marketing-consent"):
    """Tell the audience provider what a user consents to now. ``key`` is the user's id."""

    user_id: str
    consent_version: Annotated[int, Field(ge=1)]
    """Counts the user's choices: the one that this is about. What is told is the newest one."""
    address: Sealed | None
    """A mail address that the user has shown to be theirs; null if there is none."""
    ordered_at: Moment
    """When it was ordered first; it is tried for some days from then."""
    attempt: Annotated[int, Field(ge=1)] = 1
    """Counts from 1."""


ConsentLevel = Literal["general", "none"]


class RecordMarketingConsent(Command, wire="mailer.record-marketing-consent"):
    """Store what an existing user consents to."""

    user_id: str
    level: ConsentLevel
    source: str
    """Where the choice was made: ``user``, ``internal``."""


class MarketingConsentView(Reply):
    """What a user consents to."""

    level: ConsentLevel


class GetMarketingConsent(
    Query, wire="mailer.get-marketing-consent", reply=MarketingConsentView, refuses=(AwaitingConsent,)
):
    """Which mails a user wants beside those they need."""

    user_id: str


class MarketingConsentChanged(Event, wire="mailer.marketing-consent-changed"):
    """A user consented to something else than before."""

    user_id: str
    level: ConsentLevel
    source: str
    at: Moment
