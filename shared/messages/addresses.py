"""What auth is asked about addresses by other services."""

from typing import Annotated

from pydantic import Field

from shared.messages.message import Command


class FindConsentAddress(Command, wire="auth.find-consent-address"):
    """Have a marketing consent carried to the user's address, which auth alone knows: orders CarryMarketingConsent."""

    user_id: str
    consent_version: Annotated[int, Field(ge=1)]
    """As in CarryMarketingConsent."""
