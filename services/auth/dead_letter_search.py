"""Is a dead letter about somebody? It is when it says an id, an address or a number of theirs, sealed or not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from shared.dead_letters.letters import DeadLetter
from shared.messages import MESSAGES
from shared.personal_data.holdings import Person
from shared.sealing import CannotOpen, Sealer


def is_about(letter: DeadLetter, person: Person, sealer: Sealer) -> bool:
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
                with suppress(CannotOpen):
                    yield sealer.open(kind.service, text).decode("utf-8", "replace")


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
