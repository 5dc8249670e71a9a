"""Why could a verb not be done, in one line that says what to do?"""

from __future__ import annotations

from typing import Any


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
        details = "".join(f"; {name}: {value}" for name, value in told.items())
        super().__init__(f"refused: {code} ({status}{details}); request {meta.get('request_id', 'without an id')}")
        self.status = status
        self.code = code
        self.meta = meta
