"""Handlers of the mailer's part of a personal data export or erasure."""

from __future__ import annotations

from services.mailer.consents.models import next_attempt
from services.mailer.context import Mailer
from services.mailer.deliveries.models import Accepted
from shared.bus.work import Work
from shared.messages.personal_data import EraseUserFromMailer, ExportUserFromMailer
from shared.personal_data.erasure import erase_part, finish_erasure, postpone_erasure
from shared.personal_data.export import export_part
from shared.personal_data.subjects import DataSubject
from shared.telemetry import log


async def export_user_from_mailer(command: ExportUserFromMailer, work: Work, mailer: Mailer) -> None:
    """Export one part of a user's personal data, and order the next part."""
    await export_part(command, work, mailer.personal_data.exported, sealer=mailer.sealer)


async def erase_user_from_mailer(command: EraseUserFromMailer, work: Work, mailer: Mailer) -> None:
    """Erase some of a user's personal data, ordering the rest; then erase the user at the audience provider.

    An outage of the provider delays only the confirmation, not the erasure of our own data.
    """
    await mailer.erased.add([command.user_id], work)
    if mailer.mailchimp is None:
        await _log_leftover_member(command.user_id, mailer)
    if not await erase_part(command, work, mailer.personal_data.erased, sealer=mailer.sealer):
        return
    # Only the first run calls the provider: any data that it has at the second run was given by the person since.
    reason = None if command.again else await _erase_at_provider(command, mailer)
    if reason is None:
        finish_erasure(command, work)
    else:
        at = next_attempt(command.user_id, command.attempt, at=work.now)
        postpone_erasure(command, work, waits_for="mailchimp", reason=reason, at=at)


async def _erase_at_provider(command: EraseUserFromMailer, mailer: Mailer) -> str | None:
    """Erase all addresses of a user at the audience provider; return the error, or None.

    Syncs of the user's consent share this command's ordering key, so none is in flight. The provider rejects a sync
    that reaches it late, since it accepts an erased address from its owner only.
    """
    if mailer.mailchimp is None:
        return None
    for address in DataSubject.of(command, mailer.sealer).emails:
        outcome = await mailer.mailchimp.erase(address)
        if not isinstance(outcome, Accepted):
            return outcome.reason
    return None


async def _log_leftover_member(user_id: str, mailer: Mailer) -> None:
    """Log an error if the user was synced to an audience that is no longer configured: operators must erase it."""
    member = await mailer.audience_members.find(user_id)
    if member is not None and member.state != "no_address":
        log.error("erased user is still in a disabled audience", user=user_id)
