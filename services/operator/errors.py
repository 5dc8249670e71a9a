"""Why could a verb not be done, in one line that says what to do?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

WORDS: Final[Mapping[str, str]] = {
    "not_found": "there is none like that",
    "client_not_found": "there is no client with this id",
    "dead_letter_not_found": "there is no dead letter with this id (any more)",
    "validation_failed": "that is not what Nest takes",
    "news_item_changed": "somebody changed the item since that version: read it again",
    "client_changed": "somebody changed the client since that version: read it again",
    "unavailable": "Nest can't do it now: try again, and see nest doctor",
    "reply_timeout": "no answer in time, so it may have been done: look first, and see nest doctor",
}
"""What codes that anybody meets say to a person; others say enough by themselves."""


class CannotDo(Exception):
    """A verb could not be done; its text is one line for a person."""


class NowhereToGo(CannotDo):
    """Neither the environment nor a data folder names a Nest."""


class OutOfReach(CannotDo):
    """Nobody answers at the URL, or it is not Nest."""


class WrongKey(CannotDo):
    """The internal key is not one of those that Nest takes."""


class RefusedVerb(CannotDo):
    """Nest said no.

    Attributes:
        status: HTTP's.
        code: the stable code of the refusal.
        meta: what the refusal says besides.
    """

    def __init__(self, status: int, code: str, meta: dict[str, Any]) -> None:
        told = {name: value for name, value in meta.items() if name != "request_id"}
        details = "".join(f"; {name}: {_said(value)}" for name, value in told.items())
        request = meta.get("request_id", "without an id")
        super().__init__(f"{WORDS.get(code, 'refused')}: {code} ({status}{details}); request {request}")
        self.status = status
        self.code = code
        self.meta = meta


def _said(value: Any) -> str:
    """A detail for a person: of wrong fields, each with what is wrong with it."""
    if not isinstance(value, list):
        return str(value)
    return ", ".join(
        f"{each['path'] or 'the whole'}: {each['message']}"
        if isinstance(each, dict) and each.keys() == {"path", "message"}
        else str(each)
        for each in value
    )
