"""How does the mailer do its part of an export or an erasure?"""

from __future__ import annotations

from services.mailer.context import Mailer
from shared.holdings import confirm, hand_over, remove
from shared.messages.mailer import EraseUserFromMailer, ExportUserFromMailer
from shared.work import Work


async def export_user_from_mailer(command: ExportUserFromMailer, work: Work, mailer: Mailer) -> None:
    """Hand over what is held on a user, a part at a time."""
    await hand_over(command, work, mailer.people.handed_over, sealer=mailer.sealer)


async def erase_user_from_mailer(command: EraseUserFromMailer, work: Work, mailer: Mailer) -> None:
    """Remove what is held on a user, some at a time."""
    if await remove(command, work, mailer.people.removed, sealer=mailer.sealer):
        confirm(command, work)
