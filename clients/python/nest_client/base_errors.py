"""Base classes of the errors that the client raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reason:
    """Cause of an error, such as the reason why a token was refused."""

    code: str
    message: str
    docs: str


class NestError(Exception):
    """Nest refused a call.

    Attributes:
        code: Stable code of the error; ``http_<status>`` if the response has none, as from a proxy.
        message: What to do, in one sentence for developers. The words may change.
        docs: Path of the code's documentation on the Nest, or an empty string.
        status: HTTP status.
        request_id: ID of the request in Nest's logs, or an empty string.
        retry_after: Seconds to wait before another attempt, or None.
        reasons: Causes, for ``unauthorized``.
        meta: Details, which depend on the code.
    """

    def __init__(
        self,
        *,
        code: str,
        message: str = "",
        docs: str = "",
        status: int,
        request_id: str = "",
        retry_after: float | None = None,
        reasons: tuple[Reason, ...] = (),
        meta: dict[str, Any] | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.docs = docs
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.reasons = reasons
        self.meta = meta or {}
        because = "".join(f" ({reason.code})" for reason in reasons)
        super().__init__(f"{status} {code}{because}: {message}" if message else f"{status} {code}{because}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), dict(self.__dict__))


def _restored(kind: type[NestError], fields: dict[str, Any]) -> NestError:
    return kind(**fields)


class ClientError(NestError):
    """A status from 400 to 499."""


class ServerError(NestError):
    """A status from 500 on."""


class ConnectionFailed(Exception):
    """No response arrived, in all attempts. It is unknown whether a command took effect.

    Attributes:
        idempotency_key: The key to repeat the command with, or None for a query.
    """

    def __init__(self, message: str, *, idempotency_key: str | None = None) -> None:
        self.idempotency_key = idempotency_key
        super().__init__(message)


class LoginRequired(Exception):
    """The session has no tokens, or Nest has ended it. The person has to log in again."""


class StateMismatch(Exception):
    """The redirect belongs to another login: its ``state`` is missing or differs."""


class StoreLocked(Exception):
    """Another process has held the lock of the token store for too long."""
