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
    """Base class of refusals.

    Attributes:
        kind: the kind.
        code: stable code in snake_case; by default the class name. Never renamed.
        meta: facts for the caller, JSON values only, never a secret.
        reasons: the refusals that caused this one.
        remembered: True if the state that the handler collected is committed nevertheless, such as a failed attempt
            that counts.
    """

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "refused"
    remembered: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Derive the code from the class name."""
        super().__init_subclass__(**options)
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, *, reasons: tuple[Refusal, ...] = (), **meta: Any) -> None:
        super().__init__(self.code)
        self.meta = meta
        self.reasons = reasons

    def body(self) -> dict[str, Any]:
        """Return the error for clients: ``code``, and ``meta`` and ``reasons`` if there are any."""
        body: dict[str, Any] = {"code": self.code}
        if self.meta:
            body["meta"] = self.meta
        if self.reasons:
            body["reasons"] = [reason.body() for reason in self.reasons]
        return body


class NotFound(Refusal):
    """The requested object does not exist."""

    kind = Kind.NOT_FOUND


class InvalidCursor(Refusal):
    """``cursor`` is not the ``next_cursor`` of an earlier page."""


class Unavailable(Refusal):
    """A backing service is unavailable. It is unknown whether a command took effect.

    Not stored for the idempotency key: a repeat runs again, or returns the result of the first attempt.
    """

    kind = Kind.UNAVAILABLE


class IdempotencyKeyReused(Refusal):
    """The idempotency key was used with another body before."""

    kind = Kind.CONFLICT


class Unknown(Refusal):
    """An internal error. Details are in the logs, under ``meta.request_id``."""

    kind = Kind.BUG
