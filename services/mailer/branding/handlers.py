"""Handlers of the clients' branding."""

from __future__ import annotations

from dataclasses import replace

from services.mailer.branding.models import ClientBranding, branding_view
from services.mailer.context import Mailer
from shared.bus.work import Work
from shared.messages.mailer.branding import ClientLooksView, GetClientLooks, RecordClientLooks


async def record_client_looks(command: RecordClientLooks, work: Work, mailer: Mailer) -> ClientLooksView:
    """Set the branding of a client; its mails and texts show it within a second."""
    stored = await mailer.client_brandings.find(command.client_id)
    if stored is None:
        branding = ClientBranding(id=command.client_id, chosen=command.looks, created_at=work.now, updated_at=work.now)
    else:
        branding = replace(stored, chosen=command.looks, updated_at=work.now)
    mailer.client_brandings.add_or_save(branding, work, stored=stored)
    return branding_view(command.client_id, branding, mailer.branding_cache.default)


async def get_client_looks(query: GetClientLooks, _work: Work, mailer: Mailer) -> ClientLooksView:
    """Return the branding of a client."""
    stored = await mailer.client_brandings.find(query.client_id)
    return branding_view(query.client_id, stored, mailer.branding_cache.default)
