"""Refusals of the gateway, and the HTTP status of every kind of refusal."""

from __future__ import annotations

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


class HttpRefusal(Refusal):
    """A malformed or oversized request, with a status that no ``Kind`` has. The connection closes after it."""

    status: ClassVar[int] = 400

    def __init_subclass__(cls, *, status: int = 400, **options: Any) -> None:
        """Set the status of the responses."""
        super().__init_subclass__(**options)
        cls.status = status


class MalformedRequest(HttpRefusal):
    """The request violates HTTP/1.1 (RFC 9112), or is ambiguous."""


class RequestTimeout(HttpRefusal, status=408):
    """The request did not arrive completely within 15 seconds."""


class RequestIncomplete(HttpRefusal):
    """The client closed the connection before it had sent the whole body; no client receives this."""


class HeadersTooLarge(HttpRefusal, status=431):
    """Request line and headers exceed 16 KiB."""


class BodyTooLarge(HttpRefusal, status=413):
    """The body is too large; ``meta.limit`` is the limit in bytes."""


class MethodNotSupported(HttpRefusal, status=405):
    """The path does not support this HTTP method; ``meta.supported`` lists those it supports."""


class BodyMissing(Refusal):
    """The request has no body."""


class MalformedBody(Refusal):
    """The body is not one JSON object (RFC 8259) with unique keys."""


class ValidationFailed(Refusal, kind=Kind.VALIDATION_FAILED):
    """Fields are missing, unknown or invalid; ``meta.errors`` lists ``{path, message}``, never a value."""


class InvalidFields(Refusal, code="validation_failed"):
    """Fields are missing, unknown or invalid, as in ``ValidationFailed``. The routes of phone login answer 400."""


class InvalidIdempotencyKey(Refusal):
    """``Idempotency-Key`` is not 1 to 255 characters of printable ASCII."""


class Unauthorized(Refusal, kind=Kind.UNAUTHENTICATED):
    """The bearer token was rejected; ``reasons[0].code`` is the reason."""


class MalformedToken(Refusal):
    """The token is not a JWT in compact form (RFC 7519 section 3)."""


class UnknownTokenType(Refusal):
    """The scheme is neither ``bearer`` nor ``internal``."""


class InvalidAccessToken(Refusal, code="invalid_token"):
    """The signature or a claim is invalid, or the signing key or the client is no longer accepted."""


class AccessTokenExpired(Refusal, code="token_expired"):
    """The access token has expired; get another one with the refresh token."""


class TokenRevoked(Refusal):
    """The access token was revoked before its expiry, by a logout or after theft of its refresh token."""


class InvalidTokenVersion(Refusal):
    """The token's claim ``v`` is a version that this gateway does not support."""


class AccessDenied(Refusal, kind=Kind.FORBIDDEN):
    """The caller may not call this method, or not for this user."""


class OriginNotAllowed(Refusal, kind=Kind.FORBIDDEN):
    """The page's origin is not in ``NEST_CORS_ORIGINS``."""


class UnknownVersion(Refusal, kind=Kind.NOT_FOUND):
    """The path has another base version; ``meta.supported_version`` is the supported one."""


class VersionNotSupported(Refusal, kind=Kind.NOT_FOUND):
    """The path has an unknown dated version; ``meta.versions`` lists the supported ones."""


class Deprecated(Refusal, kind=Kind.GONE):
    """The method is no longer available. Its path remains for old clients."""


class TooManyRequests(Refusal, kind=Kind.THROTTLED):
    """Too many connections, or calls that wait for the service; retry after ``meta.retry_after`` seconds."""


class ReplyTimeout(Refusal, kind=Kind.TIMED_OUT):
    """No reply arrived in time. The command may still take effect: repeat it with the same ``Idempotency-Key``."""


class UnknownWebhookProvider(Refusal, kind=Kind.NOT_FOUND):
    """No webhook endpoint exists for this provider."""


class MissingWebhookBody(Refusal):
    """The request has no body."""


class InvalidWebhookPayload(Refusal):
    """The signature does not match, its time is more than 300 seconds off, or the body is not an expected event."""
