"""What may be sent to a user besides what they ordered?"""

from __future__ import annotations

from services.mailer.context import Mailer
from services.mailer.models.consents import Consent
from shared.bus.work import Work
from shared.messages.auth.users import FindConsentAddress
from shared.messages.mailer.consents import (
    GetMarketingConsent,
    MarketingConsentChanged,
    MarketingConsentView,
    RecordMarketingConsent,
)


async def record_marketing_consent(command: RecordMarketingConsent, work: Work, mailer: Mailer) -> None:
    """Keep what a user consents to, and that they said so; announced when it is something else than before.

    Of somebody who was erased nothing is kept: the link beside an old mail works, and there is nobody to write to.
    """
    if await mailer.erased.contains_any(command.user_id):
        return
    before = await mailer.consents.find(command.user_id)
    number = 1 if before is None else before.version + 1
    if before is None:
        consent = Consent.give(
            command.user_id, command.level, id=work.new_id("mktngconsent"), source=command.source, at=work.now
        )
        mailer.consents.add(consent, work)
    else:
        consent = before.choose(command.level, source=command.source, at=work.now)
        mailer.consents.save(consent, work)
    mailer.consent_changes.add(consent.change(id=work.new_id("mktngconsent"), number=number, caller=work.caller), work)
    if mailer.audience is not None:
        work.publish(FindConsentAddress(key=command.user_id, user_id=command.user_id, consent_version=number))
    if before is None or before.level != consent.level:
        work.publish(
            MarketingConsentChanged(
                key=consent.user_id, user_id=consent.user_id, level=consent.level, source=consent.source, at=work.now
            )
        )


async def get_marketing_consent(query: GetMarketingConsent, work: Work, mailer: Mailer) -> MarketingConsentView:  # noqa: ARG001 -- as every handler
    """What a user consents to.

    Raises:
        AwaitingConsent: they have never said.
    """
    return (await mailer.consents.get(query.user_id)).view()
