"""Is a dead letter about somebody? It is when it says an id, an address or a number of theirs, sealed or not."""

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


def is_about(letter: DeadLetter, person: DataSubject, sealer: Sealer) -> bool:
    """Whether a letter says anywhere by what a person is known.

    As a whole: the letters of joann@example.com say nothing of ann@example.com.

    Args:
        letter: one that is open.
        person: by what they are known.
        sealer: opens secrets in its body, for the service that it was for: a mail's recipient is one.
    """
    known = "|".join(re.escape(name) for name in (person.user_id, *person.emails, *person.phones))
    said = re.compile(rf"(?<![\w.+-])(?:{known})(?![\w-]|\.\w)", re.IGNORECASE)
    return any(said.search(text) for text in _texts(letter, sealer))


def _texts(letter: DeadLetter, sealer: Sealer) -> Iterator[str]:
    for part in (letter.key, letter.value, *(value for _, value in letter.headers)):
        yield (part or b"").decode("utf-8", "replace")
    kind = MESSAGES.get(letter.header("type") or "")
    # What is no JSON has said all that it says.
    with suppress(ValueError, RecursionError):
        for text in _strings(json.loads(letter.value or b"null")):
            yield text
            if kind is not None:
                with suppress(CannotUnseal):
                    yield sealer.unseal(kind.service, text).decode("utf-8", "replace")


def _strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, as it reads without escapes."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


MOST_REMOVED: Final = 100
"""Letters that one message removes."""


async def remove_letters(command: EraseUserFromAuth, work: Work, auth: Auth) -> bool:
    """Remove letters about somebody who is erased, some of them at a time.

    What can't be opened stays, closed to everybody, until Kafka forgets it.

    Returns:
        Whether that was the rest of them. If not, another order of the same is on its way.
    """
    person = DataSubject.of(command, auth.sealer)
    page = await auth.dead_letters.oldest(
        lambda letter: letter.removable and is_about(letter, person, auth.sealer),
        topic=None,
        limit=MOST_REMOVED,
        cursor=command.letters_from,
    )
    letters = {letter.dedup_key: letter for letter in page.letters}
    if letters:
        known = await auth.removed_letters.among(letters)
        async with auth.dead_letters.sender() as sender:
            for mark, letter in letters.items():
                # Told once more of those that are known: Kafka never cleans what was written to last.
                await sender.remove(letter)
                if mark not in known:
                    auth.removed_letters.add(mark, work, at=work.now)
    if page.next_cursor is not None:
        work.publish(command.model_copy(update={"key": work.key, "letters_from": page.next_cursor}))
    return page.next_cursor is None
