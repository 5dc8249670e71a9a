"""Who says what the mails of an app look like? An operator, of an app that there is; mailer keeps it."""

from __future__ import annotations

from services.auth.audit import audited
from services.auth.context import Auth
from shared.bus.work import Work
from shared.messages.auth.branding import SetClientLooks
from shared.messages.mailer.branding import ClientLooks, RecordClientLooks


@audited("set_client_looks")
async def set_client_looks(command: SetClientLooks, work: Work, auth: Auth) -> None:
    """Have mailer record how the mails and texts of an app appear; mailer answers the caller.

    Raises:
        ClientNotFound: there is no such app.
    """
    client = await auth.clients.get(command.client_id)
    work.note(client_id=client.id)
    looks = ClientLooks(**{name: getattr(command, name) for name in ClientLooks.model_fields})
    work.forward(RecordClientLooks(key=client.id, client_id=client.id, looks=looks))
