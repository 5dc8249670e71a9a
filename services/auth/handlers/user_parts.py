"""How does auth do its own part of an export or an erasure?"""

from __future__ import annotations

from services.auth.context import Auth
from services.auth.handlers.dead_letters import remove_letters
from services.auth.handlers.sessions import remove_sessions
from shared.bus.work import Work
from shared.messages.personal_data import EraseUserFromAuth, ExportUserFromAuth
from shared.personal_data.holdings import Person, confirm, hand_over, remove


async def export_user_part(command: ExportUserFromAuth, work: Work, auth: Auth) -> None:
    """Hand over what is held on a user, a part at a time."""
    await hand_over(command, work, auth.people.handed_over, sealer=auth.sealer)


async def erase_user_part(command: EraseUserFromAuth, work: Work, auth: Auth) -> None:
    """End and remove all sessions, then the rest, then dead letters, some at a time."""
    if await remove_sessions(command.user_id, work, auth):
        work.publish(command.model_copy(update={"key": work.key}))
        return
    person = Person.of(command, auth.sealer)
    await auth.limits.forget((person.user_id, *person.emails, *person.phones), work)
    tried = auth.people.tried(await auth.people.logins(person))
    if not await remove(command, work, (tried, *auth.people.removed), sealer=auth.sealer):
        return
    if await remove_letters(command, work, auth):
        # The second look begins at the first letter again.
        confirm(command.model_copy(update={"letters_from": None}), work)
