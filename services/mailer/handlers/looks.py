"""What do the mails and texts of a client look like?"""

from __future__ import annotations

from services.mailer.context import Mailer
from services.mailer.models.looks import LooksOfClient, view
from shared.bus.work import Work
from shared.messages.mailer.branding import ClientLooksView, GetClientLooks, RecordClientLooks


async def record_client_looks(command: RecordClientLooks, work: Work, mailer: Mailer) -> ClientLooksView:
    """Keep how a client's mails and texts appear; they do within a second."""
    before = await mailer.client_looks.find(command.client_id)
    if before is None:
        kept = LooksOfClient.choose(command.client_id, command.looks, at=work.now)
        mailer.client_looks.add(kept, work)
    else:
        kept = before.choose_anew(command.looks, at=work.now)
        mailer.client_looks.save(kept, work)
    return view(command.client_id, kept, mailer.wardrobe.own)


async def get_client_looks(query: GetClientLooks, _work: Work, mailer: Mailer) -> ClientLooksView:
    """How a client's mails and texts appear."""
    return view(query.client_id, await mailer.client_looks.find(query.client_id), mailer.wardrobe.own)
