"""Is this a request that only one reading of HTTP is possible of, and of bounded size? Else it is refused here.

What the server below lets through is known from measurements: two Host headers, none, a megabyte of headers. And what
every answer carries is put on it here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.body import discard_body
from services.gateway.cors import Cors
from services.gateway.errors import (
    Answer,
    BodyTooLarge,
    HeadersTooLarge,
    MalformedRequest,
    answer,
)
from shared.bus.envelope import MAX_BODY_BYTES
from shared.errors import Refusal, Unknown
from shared.ids import new_message_id
from shared.telemetry import log

MAX_HEAD_BYTES: Final = 16 * 1024
SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"strict-transport-security", b"max-age=31536000"),
)
"""On every answer that doesn't say otherwise."""
_ONCE: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"nest-signature",
        b"stripe-signature",
    }
)
"""Headers that mean nothing good when they come twice."""
_HOST: Final = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_BODILESS: Final = frozenset({204, 304})
"""Answers that have no length either (RFC 9110 sections 8.6 and 15.4.5)."""
_JSON: Final = (b"content-type", b"application/json")


class Guard:
    """Stands before an ASGI app.

    Args:
        app: sees only requests that are in order.
        cors: what browsers are told.
    """

    def __init__(self, app: ASGIApp, cors: Cors) -> None:
        self._app = app
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request, and hand it on."""
        headers = dict(scope["headers"])
        asked = headers.get(b"x-request-id", b"")
        request_id = asked.decode() if _REQUEST_ID.fullmatch(asked) else new_message_id()
        scope.setdefault("state", {})["request_id"] = request_id
        extra = [(b"x-request-id", request_id.encode()), *SECURITY]
        if b"origin" in headers:
            extra += self._cors.headers(headers[b"origin"])
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_lacking(message["headers"], extra)]
            await send(message)

        try:
            _check(scope, headers)
            preflight = self._cors.preflight(headers) if scope["method"] == "OPTIONS" else None
        except Refusal as refusal:
            await discard_body(receive)
            await send_answer(send_guarded, answer(refusal, request_id))
            return
        if preflight is not None:
            await send_answer(send_guarded, preflight)
            return
        try:
            await self._app(scope, receive, send_guarded)
        except Exception:  # noqa: BLE001 -- what it was is for the log; the client learns that it was our fault
            log.exception("request failed", path=loggable(scope["path"]), request=request_id)
            if not started:
                await send_answer(send_guarded, answer(Unknown(), request_id))


def loggable(path: str) -> str:
    """A path as it may stand in a log: behind the names of some routes there are passwords and tokens."""
    parts = path.split("/")
    # RPC's paths hold a version and a name; every other route has two names at most, and /register/{code}/{nonce} and
    # /unsubscribe/{token} one.
    named = {"1": 4, "register": 2, "unsubscribe": 2}.get("".join(parts[1:2]), 3)
    return path if len(parts) <= named else "/".join([*parts[:named], "…"])


def request_id(scope: Scope) -> str:
    """The id that the guard has given to a request."""
    found: str = scope["state"]["request_id"]
    return found


async def send_answer(send: Send, answered: Answer) -> None:
    """Send a whole answer."""
    headers = list(answered.headers)
    if answered.body:
        headers.append(_JSON)
    if answered.status not in _BODILESS:
        headers.append((b"content-length", b"%d" % len(answered.body)))
    await send({"type": "http.response.start", "status": answered.status, "headers": headers})
    await send({"type": "http.response.body", "body": answered.body})


def _check(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Refuse what is too large or could be read in two ways (RFC 9112 sections 3.2 and 6.3)."""
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    for name, value in scope["headers"]:
        size += len(name) + len(value) + 4
    if size > MAX_HEAD_BYTES:
        raise HeadersTooLarge(limit=MAX_HEAD_BYTES)
    if len(headers) != len(scope["headers"]):
        names = [name for name, _ in scope["headers"]]
        if any(names.count(name) > 1 for name in _ONCE):
            raise MalformedRequest
    if not _HOST.fullmatch(headers.get(b"host", b"")) or b"upgrade" in headers:
        raise MalformedRequest
    length = headers.get(b"content-length")
    if b"transfer-encoding" in headers and (length is not None or headers[b"transfer-encoding"].lower() != b"chunked"):
        raise MalformedRequest
    if length is not None:
        if not length.isdigit():
            raise MalformedRequest
        if len(length) > 10 or int(length) > MAX_BODY_BYTES:  # noqa: PLR2004 -- ten digits are too many in any case
            raise BodyTooLarge(limit=MAX_BODY_BYTES)


def _lacking(there: Iterable[tuple[bytes, bytes]], wanted: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    names = {name for name, _ in there}
    return [header for header in wanted if header[0] not in names]
