"""What does a link say by which somebody wants no more mails? Which user, sealed: nobody else can make or read it.

It works for as long as the sealing key is held that it was made with: there is no other end to somebody's wish.
"""

from __future__ import annotations

import re
from typing import Final

from shared.sealing import CannotOpen, Sealer

PATH: Final = "/unsubscribe"
"""Where the gateway takes such tokens: ``/unsubscribe/<token>``."""
LANGUAGE: Final = "lang"
"""The query's field for the language that the mail was written in: ``?lang=de``."""
_RECEIVER: Final = "unsubscribe"
"""Sealed for this use alone: nothing else that is sealed opens as such a token."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9]{1,64}\.[A-Za-z0-9_-]{1,400}={0,2}")


def unsubscribe_token(sealer: Sealer, user_id: str) -> str:
    """A token that stands in a URL as it is."""
    return sealer.seal(_RECEIVER, user_id.encode())


def user_of(sealer: Sealer, token: str) -> str | None:
    """The user whom a token names; None if it is none of ours."""
    if not _TOKEN.fullmatch(token):
        return None
    try:
        return sealer.open(_RECEIVER, token).decode()
    except CannotOpen:
        return None
