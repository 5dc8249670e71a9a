"""Handler of the events about entitlements."""

from __future__ import annotations

import asyncio

from services.auth.context import Auth
from services.auth.entitlements.models import Entitlements
from shared.bus.work import Work
from shared.messages.billing.entitlements import EntitlementsChanged


async def entitlements_changed(event: EntitlementsChanged, work: Work, auth: Auth) -> None:
    """Store the features of a user for the access tokens that are issued from now on.

    An older change than the stored one is ignored, and so is one of a user who was erased. Tokens that were issued
    before stay valid with their features, so nobody is logged out.
    """
    user, stored = await asyncio.gather(auth.users.find(event.user_id), auth.entitlements.find(event.user_id))
    if user is None:
        return
    if stored is None:
        # If the user is erased at the same time, no document must remain.
        auth.users.require_unchanged(user, work)
        entitlements = Entitlements(
            id=user.id, features=tuple(event.features), ent_v=event.version, updated_at=work.now
        )
        auth.entitlements.add(entitlements, work)
        return
    changed = stored.change(tuple(event.features), event.version, at=work.now)
    if changed is not stored:
        auth.entitlements.save(changed, work)
