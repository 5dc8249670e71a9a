"""Handlers of marketing consents, and their sync to the audience provider."""

from __future__ import annotations

from services.mailer.consents.mailchimp import GIVEN_UP
from services.mailer.consents.models import AudienceMember, Consent, next_attempt
from services.mailer.context import Mailer
from services.mailer.webhooks.deliveries import offer_event
from shared.bus.work import Work
from shared.messages.auth.users import FindConsentAddress
from shared.messages.mailer.consents import (
    CarryMarketingConsent,
    GetMarketingConsent,
    MarketingConsentChanged,
    MarketingConsentView,
    RecordMarketingConsent,
)
from shared.telemetry import log


async def record_marketing_consent(command: RecordMarketingConsent, work: Work, mailer: Mailer) -> None:
    """Store a user's choice and its history entry, and publish an event if the level changed.

    Nothing is stored for erased users: the unsubscribe link in an old mail keeps working without effect.
    """
    if await mailer.erased.contains_any(command.user_id):
        return
    stored = await mailer.consents.find(command.user_id)
    number = 1 if stored is None else stored.version + 1
    if stored is None:
        consent = Consent.create(
            command.user_id, command.level, id=work.new_id("mktngconsent"), source=command.source, at=work.now
        )
    else:
        consent = stored.choose(command.level, source=command.source, at=work.now)
    mailer.consents.add_or_save(consent, work, stored=stored)
    mailer.consent_changes.add(consent.change(id=work.new_id("mktngconsent"), number=number, caller=work.caller), work)
    if mailer.mailchimp is not None:
        work.publish(FindConsentAddress(key=command.user_id, user_id=command.user_id, consent_version=number))
    if stored is None or stored.level != consent.level:
        changed = MarketingConsentChanged(
            key=consent.user_id, user_id=consent.user_id, level=consent.level, source=consent.source, at=work.now
        )
        work.publish(changed)
        if not mailer.wanted_events.skips(changed.wire):
            await offer_event(changed, work, mailer)


async def get_marketing_consent(query: GetMarketingConsent, _work: Work, mailer: Mailer) -> MarketingConsentView:
    """Return a user's consent.

    Raises:
        AwaitingConsent: the user has never chosen.
    """
    return (await mailer.consents.get(query.user_id)).view()


async def carry_marketing_consent(command: CarryMarketingConsent, work: Work, mailer: Mailer) -> None:
    """Send a user's current consent to the audience provider; retry later if the provider is unavailable.

    The command always sends the newest choice, whichever choice it was published for, even if the provider has already
    accepted that one: an earlier attempt whose answer was lost may have been applied after it. If the user chooses
    again during the call, the handler runs again. So the provider's last update is the user's last choice.
    """
    if mailer.mailchimp is None:
        return
    consent = await mailer.consents.find(command.user_id)
    if consent is None:
        return
    stored = await mailer.audience_members.find(command.user_id)
    before = stored or AudienceMember.create(consent, at=work.now)
    if command.address is None:
        member = before.without_address(consent, at=work.now)
    else:
        outcome = await mailer.mailchimp.update(mailer.unseal(command.address), consent.level)
        member = before.after(outcome, consent, ordered_at=command.ordered_at, at=work.now)
    mailer.consents.require_unchanged(consent, work)
    mailer.audience_members.add_or_save(member, work, stored=stored)
    match member.state:
        # A newer choice has a command of its own, which is retried for as long.
        case "waiting" if command.consent_version == consent.version or before.state == "carried":
            retry = {"key": work.key, "attempt": command.attempt + 1}
            at = next_attempt(command.user_id, command.attempt, at=work.now)
            work.publish(command.model_copy(update=retry), at=at)
        case "given_up":
            GIVEN_UP.inc()
            log.error("consent not synced", user=command.user_id, level=member.level, reason=member.reason)
