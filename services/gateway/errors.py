"""Which HTTP status does a no get? The only place where Nest knows, and the refusals that only HTTP can cause."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from shared.errors import Kind, Refusal

STATUS: Final = {
    Kind.VALIDATION_FAILED: 422,
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.PAYMENT_REQUIRED: 402,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.GONE: 410,
    Kind.THROTTLED: 429,
    Kind.TIMED_OUT: 504,
    Kind.UNAVAILABLE: 503,
    Kind.BUG: 500,
}
RETRY_SECONDS: Final = 1
"""What ``retry-after`` says when nothing better is known."""
_RETRIED: Final = frozenset({429, 503})


class HttpRefusal(Refusal):
    """A no to the request's form, with a status that no kind has."""

    status: ClassVar[int] = 400


class MalformedRequest(HttpRefusal):
    """Not HTTP as RFC 9112 has it, or such that two readers could understand it differently."""


class RequestTimeout(HttpRefusal):
    """The request did not arrive in time."""

    status = 408


class RequestIncomplete(HttpRefusal):
    """The connection ended before the request did; nobody hears this."""


class HeadersTooLarge(HttpRefusal):
    """Request line and headers have more than 16 KiB."""

    status = 431


class BodyTooLarge(HttpRefusal):
    """``meta.limit`` is how many bytes a body may have."""

    status = 413


class MethodNotSupported(HttpRefusal):
    """Another HTTP verb than the path has; ``meta.supported`` lists them."""

    status = 405


class BodyMissing(Refusal):
    """The request has no body."""


class MalformedBody(Refusal):
    """The body is not one JSON object (RFC 8259, and no key twice)."""


class ValidationFailed(Refusal):
    """The object has not the method's shape; ``meta.errors`` lists ``{path, message}``, never a value."""

    kind = Kind.VALIDATION_FAILED


class InvalidIdempotencyKey(Refusal):
    """``Idempotency-Key`` has more than 255 characters, none, or others than printable ASCII."""


class UnknownVersion(Refusal):
    """No such base version; ``meta.supported_version`` is the one there is."""

    kind = Kind.NOT_FOUND


class VersionNotSupported(Refusal):
    """No such dated version; ``meta.versions`` lists those there are."""

    kind = Kind.NOT_FOUND


class Deprecated(Refusal):
    """The method is kept for old clients and does nothing any more."""

    kind = Kind.GONE


class TooManyRequests(Refusal):
    """More calls are under way than this gateway takes; ``meta.retry_after`` in seconds."""

    kind = Kind.THROTTLED


class ReplyTimeout(Refusal):
    """No answer came in time. Whether the order took effect is not known; its ``Idempotency-Key`` resolves it."""

    kind = Kind.TIMED_OUT


class OriginNotAllowed(Refusal):
    """A browser asks on behalf of a page whose origin the settings do not allow."""

    kind = Kind.FORBIDDEN


@dataclass(slots=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: HTTP's.
        body: JSON, or nothing.
        headers: besides those of every answer.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


def answer(refusal: Refusal, request_id: str) -> Answer:
    """A refusal as HTTP carries it."""
    if not isinstance(refusal, HttpRefusal):
        return _answer(STATUS[refusal.kind], refusal.body(), request_id)
    answered = _answer(refusal.status, refusal.body(), request_id)
    # What else comes on this connection can't be told from the rest of this request.
    answered.headers = (*answered.headers, (b"connection", b"close"))
    return answered


def answer_to_reply(kind: str, body: bytes, request_id: str) -> Answer:
    """A service's refusal, as its reply carries it, as HTTP carries it."""
    return _answer(STATUS[Kind(kind)], json.loads(body), request_id)


def _answer(status: int, body: dict[str, Any], request_id: str) -> Answer:
    meta = body.setdefault("meta", {})
    headers: list[tuple[bytes, bytes]] = []
    if status in _RETRIED:
        headers.append((b"retry-after", b"%d" % max(1, int(meta.get("retry_after", RETRY_SECONDS)))))
    elif status == STATUS[Kind.UNAUTHENTICATED]:
        headers.append((b"www-authenticate", b"bearer"))
    elif status == MethodNotSupported.status:
        headers.append((b"allow", ", ".join(meta["supported"]).encode()))
    body["meta"] = {**meta, "request_id": request_id}
    return Answer(status, json.dumps(body).encode(), tuple(headers))
