"""Erasure of dead letters that contain personal data of an erased user."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from services.auth.context import Auth
from shared.bus.work import Work
from shared.dead_letters.records import DeadLetter
from shared.messages import MESSAGES
from shared.messages.personal_data import EraseUserFromAuth
from shared.personal_data.subjects import DataSubject
from shared.sealing import CannotUnseal, Sealer

MAX_REMOVED: Final = 100
"""Dead letters that one message removes."""


async def erase_letters(command: EraseUserFromAuth, work: Work, auth: Auth) -> bool:
    """Remove dead letters about the user, a bounded number per message; order the rest by another message.

    Dead letters that can't be unsealed stay until Kafka deletes them after 30 days; they can't be read.

    Returns:
        Whether nothing is left.
    """
    subject = DataSubject.of(command, auth.sealer)
    page = await auth.dead_letters.oldest(
        lambda letter: letter.removable and is_about(letter, subject, auth.sealer),
        topic=None,
        limit=MAX_REMOVED,
        cursor=command.letters_from,
    )
    letters = {letter.dedup_key: letter for letter in page.letters}
    if letters:
        removed = await auth.removed_letters.among(letters)
        async with auth.dead_letters.sender() as sender:
            for dedup_key, letter in letters.items():
                # Repeated for those that are already removed: Kafka never compacts the newest segment, so the first
                # tombstone may not have had an effect yet.
                await sender.remove(letter)
                if dedup_key not in removed:
                    auth.removed_letters.add(dedup_key, work, at=work.now)
    if page.next_cursor is not None:
        work.publish(command.model_copy(update={"key": work.key, "letters_from": page.next_cursor}))
    return page.next_cursor is None


def is_about(letter: DeadLetter, subject: DataSubject, sealer: Sealer) -> bool:
    """Whether a dead letter contains an ID, address or number of a person, in plain text or sealed.

    Only whole addresses match: joann@example.com does not contain ann@example.com. The dead letter is unsealed, but
    single fields in its body, such as the recipient of a mail, are still sealed for the receiving service.
    """
    identifiers = "|".join(re.escape(name) for name in (subject.user_id, *subject.emails, *subject.phones))
    pattern = re.compile(rf"(?<![\w.+-])(?:{identifiers})(?![\w-]|\.\w)", re.IGNORECASE)
    return any(pattern.search(text) for text in _texts(letter, sealer))


def _texts(letter: DeadLetter, sealer: Sealer) -> Iterator[str]:
    for part in (letter.key, letter.value, *(value for _, value in letter.headers)):
        yield (part or b"").decode("utf-8", "replace")
    kind = MESSAGES.get(letter.header("type") or "")
    # A body that is not JSON has been searched as text.
    with suppress(ValueError, RecursionError):
        for text in _strings(json.loads(letter.value or b"null")):
            yield text
            if kind is not None:
                with suppress(CannotUnseal):
                    yield sealer.unseal(kind.service, text).decode("utf-8", "replace")


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, including the names of members."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
