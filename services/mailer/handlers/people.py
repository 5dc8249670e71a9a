"""How does the mailer do its part of an export or an erasure?"""

from __future__ import annotations

from services.mailer.context import Mailer
from services.mailer.models.audience import Carried, next_try
from shared.bus.work import Work
from shared.messages.personal_data import EraseUserFromMailer, ExportUserFromMailer
from shared.personal_data.erasure import erase_part, finish_erasure, postpone_erasure
from shared.personal_data.export import export_part
from shared.personal_data.subjects import DataSubject
from shared.telemetry import log


async def export_user_from_mailer(command: ExportUserFromMailer, work: Work, mailer: Mailer) -> None:
    """Hand over what is held on a user, a part at a time."""
    await export_part(command, work, mailer.people.handed_over, sealer=mailer.sealer)


async def erase_user_from_mailer(command: EraseUserFromMailer, work: Work, mailer: Mailer) -> None:
    """Remove what is held on a user, some at a time; then have the audience provider forget them, whenever it can.

    That the provider can't be asked keeps nothing of ours: only the word that all is done waits for it.
    """
    await mailer.erased.add([command.user_id], work)
    if mailer.audience is None:
        await _tell_of_leftover(command.user_id, mailer)
    if not await erase_part(command, work, mailer.people.removed, sealer=mailer.sealer):
        return
    # Once is for good: by the second look, what the provider knows of the address is what its owner told it since.
    reason = None if command.again else await _not_forgotten(command, mailer)
    if reason is None:
        finish_erasure(command, work)
    else:
        at = next_try(command.user_id, command.attempt, at=work.now)
        postpone_erasure(command, work, waits_for="mailchimp", reason=reason, at=at)


async def _not_forgotten(command: EraseUserFromMailer, mailer: Mailer) -> str | None:
    """Have the audience provider forget all addresses of a user; tells why it has not, or None.

    The user's choices are carried under the same key as this order, so none is on its way now; and one that the
    provider gets late from the network it refuses, since the address is forgotten.
    """
    if mailer.audience is None:
        return None
    for address in DataSubject.of(command, mailer.sealer).emails:
        carriage = await mailer.audience.forget(address)
        if not isinstance(carriage, Carried):
            return carriage.reason
    return None


async def _tell_of_leftover(user_id: str, mailer: Mailer) -> None:
    """Nobody can be asked any more to forget whom it was told of: operators must see to it."""
    known = await mailer.audience_members.find(user_id)
    if known is not None and known.state != "no_address":
        log.error("erased, and still in the audience that was switched off", user=user_id)
