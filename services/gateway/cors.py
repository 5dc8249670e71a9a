"""Cross-origin requests: CORS headers for the origins in the settings (https://fetch.spec.whatwg.org)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from services.gateway.errors import OriginNotAllowed
from services.gateway.responses import HeaderList, HttpResponse

PREFLIGHT_SECONDS: Final = 7200
"""Chromium caches a preflight response for at most two hours."""
_ALLOWED_METHODS: Final = b"GET, POST, PUT, DELETE"
_ALLOWED_HEADERS: Final = b"authorization, content-type, idempotency-key, if-none-match, x-request-id, traceparent"
_EXPOSED_HEADERS: Final = b"x-request-id, idempotent-replayed, etag, retry-after"


class Cors:
    """CORS responses and headers.

    Args:
        origins: allowed origins as browsers send them, such as ``https://app.example.com``.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def preflight(self, headers: dict[bytes, bytes]) -> HttpResponse | None:
        """Response to a preflight request; None if these are not the headers of one.

        Raises:
            OriginNotAllowed: the origin is not in the settings.
        """
        origin = headers.get(b"origin")
        if origin is None or b"access-control-request-method" not in headers:
            return None
        if origin not in self._origins:
            raise OriginNotAllowed
        return HttpResponse(
            204,
            headers=(
                (b"access-control-allow-methods", _ALLOWED_METHODS),
                (b"access-control-allow-headers", _ALLOWED_HEADERS),
                (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
            ),
        )

    def headers(self, origin: bytes) -> HeaderList:
        """CORS headers of any response to a page of this origin."""
        if origin not in self._origins:
            return ((b"vary", b"origin"),)
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED_HEADERS),
            (b"vary", b"origin"),
        )
