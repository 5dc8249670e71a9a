"""How does the audience provider learn what a user consents to? It is told the newest choice, until it has taken it."""

from __future__ import annotations

from services.mailer.context import Mailer
from services.mailer.models.audience import AudienceMember, next_try
from shared.bus.work import Work
from shared.messages.mailer.consents import CarryMarketingConsent
from shared.telemetry import log


async def carry_marketing_consent(command: CarryMarketingConsent, work: Work, mailer: Mailer) -> None:
    """Tell the provider what a user consents to now; what it does not take now is ordered again for later.

    Whichever choice the order was made for, the newest one is told, even where the provider is said to have taken it:
    an earlier try whose answer got lost may have been carried out after it. And should the user choose again while the
    provider is asked, the handler runs again. So what the provider hears last is what was chosen last.
    """
    if mailer.audience is None:
        return
    consent = await mailer.consents.find(command.user_id)
    if consent is None:
        return
    known = await mailer.audience_members.find(command.user_id)
    member = known or AudienceMember.of(consent, at=work.now)
    if command.address is None:
        told = member.without_address(consent, at=work.now)
    else:
        carriage = await mailer.audience.tell(mailer.unseal(command.address), consent.level)
        told = member.after(carriage, consent, ordered_at=command.ordered_at, at=work.now)
    mailer.consents.require_unchanged(consent, work)
    if known is None:
        mailer.audience_members.add(told, work)
    else:
        mailer.audience_members.save(told, work)
    match told.state:
        # A newer choice has an order of its own, which goes on as long.
        case "waiting" if command.consent_version == consent.version or member.state == "carried":
            again = {"key": work.key, "attempt": command.attempt + 1}
            at = next_try(command.user_id, command.attempt, at=work.now)
            work.publish(command.model_copy(update=again), at=at)
        case "given_up":
            mailer.audience.given_up()
            log.error("consent not carried", user=command.user_id, level=told.level, reason=told.reason)
