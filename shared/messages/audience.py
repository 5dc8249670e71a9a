"""How does a marketing consent reach the audience provider? mailer asks auth for the address, and then carries it."""

from typing import Annotated

from pydantic import Field

from shared.messages.message import Command, Moment, Sealed


class CarryMarketingConsent(Command, wire="mailer.carry-marketing-consent"):
    """Tell the audience provider what a user consents to now. No reply body. ``key`` is the user's id."""

    user_id: str
    consent_version: Annotated[int, Field(ge=1)]
    """Counts the user's choices: the one that this is about. What is told is the newest one."""
    address: Sealed | None
    """A mail address that the user has shown to be theirs; null if there is none."""
    ordered_at: Moment
    """When it was ordered first; it is tried for some days from then."""
    attempt: Annotated[int, Field(ge=1)] = 1
    """Counts from 1."""
