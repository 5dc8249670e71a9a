"""HTTP middleware: request IDs, security headers, CORS, and refusal of oversized or ambiguous requests.

The checks refuse requests that uvicorn accepts: with two Host headers, without a Host header, with a megabyte of
headers. CORS follows https://fetch.spec.whatwg.org.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.errors import BodyTooLarge, HeadersTooLarge, MalformedRequest, OriginNotAllowed
from services.gateway.http_calls import HttpCall, HttpCalls
from services.gateway.requests import discard_body
from services.gateway.responses import HeaderList, HttpResponse, refusal_response, send_response
from services.gateway.versions import version_of
from shared.bus.envelope import MAX_BODY_BYTES
from shared.errors import Refusal, Unknown
from shared.telemetry import log

MAX_HEAD_BYTES: Final = 16 * 1024
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000"),
)
"""Added to every response that does not set them itself."""
_PREFLIGHT_HEADERS: Final = (
    (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
    # Chromium caches a preflight response for at most two hours.
    (b"access-control-max-age", b"7200"),
    (b"vary", b"origin, access-control-request-headers"),
)
_REQUEST_HEADERS: Final = b"authorization, content-type, idempotency-key, if-none-match, x-request-id, traceparent"
"""Allowed if a preflight does not name the headers."""
_EXPOSED_HEADERS: Final = (b"access-control-expose-headers", b"x-request-id, idempotent-replayed, etag, retry-after")
_UNIQUE_HEADERS: Final = (
    *(b"authorization", b"content-length", b"content-type", b"host"),
    *(b"idempotency-key", b"nest-signature", b"stripe-signature"),
)
"""Headers that two parsers could read differently if they were repeated."""
_HOST: Final = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_HEALTH_PATHS: Final = frozenset({"/healthz", "/healthz/"})
_FIELD_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class HttpMiddleware:
    """ASGI middleware around the whole gateway.

    Args:
        app: receives only well-formed requests.
        cors_origins: allowed origins as browsers send them, such as ``https://app.example.com``.
        calls: observes every request.
    """

    def __init__(self, app: ASGIApp, cors_origins: Collection[str], calls: HttpCalls) -> None:
        self._app = app
        self._calls = calls
        self._cors_origins = frozenset(origin.encode() for origin in cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on. An unexpected error is logged, and the response is 500."""
        headers = dict(scope["headers"])
        with self._calls.begin(scope, headers, request_id_of(headers)) as call:
            scope["state"]["request_id"] = call.request_id
            await self._serve(call, scope, receive, send, headers)

    async def _serve(
        self, call: HttpCall, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]
    ) -> None:
        request_id = call.request_id
        extra = ((b"x-request-id", request_id.encode()), *SECURITY_HEADERS, *self._cors_headers(headers.get(b"origin")))
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                call.status = message["status"]
                present = {name for name, _ in message["headers"]}
                missing = [each for each in extra if each[0] not in present]
                message["headers"] = [*message["headers"], *missing]
            await send(message)

        try:
            _check(scope, headers)
            is_preflight = self._is_preflight(scope["method"], headers)
        except Refusal as refusal:
            call.outcome = refusal.code
            await discard_body(receive)
            await send_response(send_with_headers, refusal_response(refusal, request_id, version_of(scope["path"])))
            return
        if is_preflight:
            call.method = "preflight"
            await send_response(send_with_headers, _preflight_response(headers))
            return
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:  # noqa: BLE001 -- any error must become a 500 that reveals nothing
            call.outcome = Unknown.code
            log.exception("request failed", path=loggable_path(scope["path"]), request_id=request_id)
            if not started:
                refused = refusal_response(Unknown(), request_id, version_of(scope["path"]))
                await send_response(send_with_headers, refused)

    def _is_preflight(self, method: str, headers: dict[bytes, bytes]) -> bool:
        if method != "OPTIONS" or b"origin" not in headers or b"access-control-request-method" not in headers:
            return False
        if headers[b"origin"] not in self._cors_origins:
            raise OriginNotAllowed
        return True

    def _cors_headers(self, origin: bytes | None) -> HeaderList:
        if origin is None:
            return ()
        if origin not in self._cors_origins:
            return ((b"vary", b"origin"),)
        return ((b"access-control-allow-origin", origin), _EXPOSED_HEADERS, (b"vary", b"origin"))


def _preflight_response(headers: dict[bytes, bytes]) -> HttpResponse:
    """Response to the preflight of a configured origin, which allows all headers that the page asks for."""
    requested = headers.get(b"access-control-request-headers", b"")
    well_formed = all(_FIELD_NAME.fullmatch(name.strip()) for name in requested.split(b","))
    allowed = requested if well_formed else _REQUEST_HEADERS
    return HttpResponse(204, headers=((b"access-control-allow-headers", allowed), *_PREFLIGHT_HEADERS))


def request_id_of(headers: dict[bytes, bytes]) -> str:
    """The client's ``x-request-id`` if it is well-formed, otherwise empty."""
    client_id = headers.get(b"x-request-id", b"")
    return client_id.decode() if _REQUEST_ID.fullmatch(client_id) else ""


def loggable_path(path: str) -> str:
    """The path without the segments that may contain passwords and tokens."""
    segments = path.split("/")
    # RPC paths consist of versions and names; of some other routes the first two segments are names.
    count = {"1": 4, ".well-known": 3, "appowner": 3, "applications": 3, "users": 3}.get("".join(segments[1:2]), 2)
    return path if len(segments) <= count else "/".join([*segments[:count], "…"])


def _check(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Refuse oversized requests, and those that two parsers could read differently (RFC 9112 sections 3.2, 6.3)."""
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    for name, value in scope["headers"]:
        size += len(name) + len(value) + 4
    if size > MAX_HEAD_BYTES:
        raise HeadersTooLarge(limit=MAX_HEAD_BYTES)
    if len(headers) != len(scope["headers"]):
        names = [name for name, _ in scope["headers"]]
        if any(names.count(name) > 1 for name in _UNIQUE_HEADERS):
            raise MalformedRequest
    if not _HOST.fullmatch(headers.get(b"host", b"")) and not _is_old_health_check(scope, headers):
        raise MalformedRequest
    if scope["method"] == "CONNECT" or (b"upgrade" in headers and asks_for_websocket(scope["headers"])):
        raise MalformedRequest
    _check_length(headers)


def _check_length(headers: dict[bytes, bytes]) -> None:
    length = headers.get(b"content-length")
    if b"transfer-encoding" in headers and (length is not None or headers[b"transfer-encoding"].lower() != b"chunked"):
        raise MalformedRequest
    if length is not None:
        if not length.isdigit():
            raise MalformedRequest
        if len(length) > 10 or int(length) > MAX_BODY_BYTES:  # noqa: PLR2004 -- more digits are too many in any case
            raise BodyTooLarge(limit=MAX_BODY_BYTES)


def _is_old_health_check(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether a request is a health check over HTTP/1.0, which has no Host header (RFC 1945), as HAProxy sends it."""
    return scope["http_version"] == "1.0" and not headers.get(b"host") and scope["path"] in _HEALTH_PATHS


def asks_for_websocket(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether headers ask for a WebSocket, which is refused although other protocols are ignored.

    Some proxies take any response to a WebSocket handshake for its success, and let the client send whatever it likes
    over their connection.
    """
    return any(name == b"upgrade" and b"websocket" in value.lower() for name, value in headers)
