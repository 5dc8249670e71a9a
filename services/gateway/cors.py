"""Which pages may call from a browser? Those whose origin the settings name (https://fetch.spec.whatwg.org)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from services.gateway.errors import Answer, OriginNotAllowed

Headers = tuple[tuple[bytes, bytes], ...]

PREFLIGHT_SECONDS: Final = 7200
"""What Chromium keeps a pre-flight's answer for at most."""
_METHODS: Final = b"GET, POST, PUT, DELETE"
_ASKED: Final = b"authorization, content-type, idempotency-key, if-none-match, x-request-id, traceparent"
_SHOWN: Final = b"x-request-id, idempotent-replayed, etag, retry-after"


class Cors:
    """Answers browsers.

    Args:
        origins: ``https://app.example.com``, as browsers write them.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def preflight(self, headers: dict[bytes, bytes]) -> Answer | None:
        """The answer to a pre-flight request; None if these are not the headers of one.

        Raises:
            OriginNotAllowed: the settings do not name the page's origin.
        """
        origin = headers.get(b"origin")
        if origin is None or b"access-control-request-method" not in headers:
            return None
        if origin not in self._origins:
            raise OriginNotAllowed
        return Answer(
            204,
            headers=(
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", _ASKED),
                (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
            ),
        )

    def headers(self, origin: bytes) -> Headers:
        """What an answer to a page of that origin carries."""
        if origin not in self._origins:
            return ((b"vary", b"origin"),)
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _SHOWN),
            (b"vary", b"origin"),
        )
