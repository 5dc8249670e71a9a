"""Refusals of the gateway, and the HTTP status of every kind of refusal."""

from __future__ import annotations

from typing import ClassVar, Final

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


class HttpRefusal(Refusal):
    """A malformed or oversized request, with a status that no ``Kind`` has. The connection closes after it."""

    status: ClassVar[int] = 400


class MalformedRequest(HttpRefusal):
    """The request violates HTTP/1.1 (RFC 9112), or is ambiguous."""


class RequestTimeout(HttpRefusal):
    """The request did not arrive completely within 15 seconds."""

    status = 408


class RequestIncomplete(HttpRefusal):
    """The client closed the connection before it had sent the whole body; no client receives this."""


class HeadersTooLarge(HttpRefusal):
    """Request line and headers exceed 16 KiB."""

    status = 431


class BodyTooLarge(HttpRefusal):
    """The body is too large; ``meta.limit`` is the limit in bytes."""

    status = 413


class MethodNotSupported(HttpRefusal):
    """The path does not support this HTTP method; ``meta.supported`` lists those it supports."""

    status = 405


class BodyMissing(Refusal):
    """The request has no body."""


class MalformedBody(Refusal):
    """The body is not one JSON object (RFC 8259) with unique keys."""


class ValidationFailed(Refusal):
    """Fields are missing, unknown or invalid; ``meta.errors`` lists ``{path, message}``, never a value."""

    kind = Kind.VALIDATION_FAILED


class InvalidIdempotencyKey(Refusal):
    """``Idempotency-Key`` is not 1 to 255 characters of printable ASCII."""


class Unauthorized(Refusal):
    """The bearer token was rejected; ``reasons[0].code`` is the reason."""

    kind = Kind.UNAUTHENTICATED


class MalformedToken(Refusal):
    """The token is not a JWT in compact form (RFC 7519 section 3)."""


class UnknownTokenType(Refusal):
    """The scheme is neither ``bearer`` nor ``internal``."""


class InvalidToken(Refusal):
    """Signature or claims are not valid here, or the signing key or the client is no longer accepted."""


class TokenExpired(Refusal):
    """The access token has expired; get another one with the refresh token."""


class TokenRevoked(Refusal):
    """The access token was revoked before its expiry, by a logout or after theft of its refresh token."""


class InvalidTokenVersion(Refusal):
    """The token's claim ``v`` is a version that this gateway does not support."""


class AccessDenied(Refusal):
    """The caller may not call this method, or not for this user."""

    kind = Kind.FORBIDDEN


class OriginNotAllowed(Refusal):
    """The page's origin is not in ``NEST_CORS_ORIGINS``."""

    kind = Kind.FORBIDDEN


class UnknownVersion(Refusal):
    """The path has another base version; ``meta.supported_version`` is the supported one."""

    kind = Kind.NOT_FOUND


class VersionNotSupported(Refusal):
    """The path has an unknown dated version; ``meta.versions`` lists the supported ones."""

    kind = Kind.NOT_FOUND


class Deprecated(Refusal):
    """The method is no longer available. Its path remains for old clients."""

    kind = Kind.GONE


class TooManyRequests(Refusal):
    """The gateway is at its limit of concurrent calls or connections; retry after ``meta.retry_after`` seconds."""

    kind = Kind.THROTTLED


class ReplyTimeout(Refusal):
    """No reply arrived in time. The command may still take effect: repeat it with the same ``Idempotency-Key``."""

    kind = Kind.TIMED_OUT


class UnknownWebhookProvider(Refusal):
    """No webhook endpoint exists for this provider."""

    kind = Kind.NOT_FOUND


class MissingWebhookBody(Refusal):
    """The request has no body."""


class InvalidWebhookPayload(Refusal):
    """The signature does not match, its time is more than 300 seconds off, or the body is not an expected event."""
