"""Refusals: domain errors with a kind and a stable code.

A refusal is a final answer to a message. Every other exception of a handler is a failure, and the message is retried.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, ClassVar


class Kind(StrEnum):
    """Kind of a refusal; the gateway maps it to an HTTP status."""

    INVALID = "invalid"
    VALIDATION_FAILED = "validation_failed"
    UNAUTHENTICATED = "unauthenticated"
    PAYMENT_REQUIRED = "payment_required"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    GONE = "gone"
    THROTTLED = "throttled"
    TIMED_OUT = "timed_out"
    UNAVAILABLE = "unavailable"
    BUG = "bug"


class Refusal(Exception):
    """Base class of refusals. Docstrings of refusals are texts of the API reference.

    A subclass declares its properties as class arguments: ``class ClientNotFound(Refusal, kind=Kind.NOT_FOUND)``.
    ``reasons`` are the refusals that caused this one; ``meta`` has facts for the caller, JSON values only, never a
    secret.
    """

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "refused"
    """Stable code in snake_case. Never renamed."""
    remembered: ClassVar[bool] = False
    """Whether the state that the handler collected is committed nevertheless, such as a failed attempt that counts."""

    def __init_subclass__(
        cls, *, kind: Kind | None = None, code: str | None = None, remembered: bool | None = None, **options: Any
    ) -> None:
        """Set the class attributes. ``code`` defaults to the class name, the others to those of the parent."""
        super().__init_subclass__(**options)
        cls.kind = kind or cls.kind
        cls.code = code or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        cls.remembered = cls.remembered if remembered is None else remembered

    def __init__(self, *, reasons: tuple[Refusal, ...] = (), **meta: Any) -> None:
        super().__init__(self.code)
        self.meta = meta
        self.reasons = reasons

    def body(self) -> dict[str, Any]:
        """Return the error for clients: ``code``, and ``meta`` and ``reasons`` if there are any."""
        details = {"meta": self.meta, "reasons": [reason.body() for reason in self.reasons]}
        return {"code": self.code} | {name: value for name, value in details.items() if value}


class NotFound(Refusal, kind=Kind.NOT_FOUND):
    """The requested object does not exist."""


class InvalidCursor(Refusal):
    """``cursor`` is not the ``next_cursor`` of an earlier page."""


class Unavailable(Refusal, kind=Kind.UNAVAILABLE):
    """A backing service is unavailable. It is unknown whether a command took effect.

    Not stored for the idempotency key: a repeat runs again, or returns the result of the first attempt.
    """


class QueryTimeout(Refusal, kind=Kind.TIMED_OUT):
    """The query has to read too much, or the database is slow. Narrow it: set a filter or shorten its period."""


class IdempotencyKeyReused(Refusal, kind=Kind.CONFLICT):
    """The idempotency key was used with another body before."""


class Unknown(Refusal, kind=Kind.BUG):
    """An internal error. Details are in the logs, under ``meta.request_id``."""
