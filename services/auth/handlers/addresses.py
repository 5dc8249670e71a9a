"""Who is told which address is whose? mailer, of a user whose consent it carries further."""

from __future__ import annotations

from services.auth.context import Auth
from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.auth.users import FindConsentAddress
from shared.messages.mailer.consents import CarryMarketingConsent


async def find_consent_address(command: FindConsentAddress, work: Work, auth: Auth) -> None:
    """Order a consent to be carried to the newest address that its user has shown to be theirs, if there is one."""
    identifiers = await auth.identifiers.of_user(command.user_id)
    proven = [identifier for identifier in identifiers if identifier.is_proven_email]
    newest = max(proven, key=lambda identifier: identifier.created_at, default=None)
    work.publish(
        CarryMarketingConsent(
            key=command.user_id,
            user_id=command.user_id,
            consent_version=command.consent_version,
            address=None if newest is None else Sealed.of(newest.identifier_value),
            ordered_at=work.now,
        )
    )
