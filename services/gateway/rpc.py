"""How does one RPC call go, from the HTTP request to the HTTP answer?

Off Starlette's road, since every microsecond here is paid by every call: one ASGI function, one look into a table.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import Histogram
from starlette.types import Receive, Scope, Send

from services.gateway.access import AccessDenied
from services.gateway.asking import Asking, Headers, answered
from services.gateway.body import parse_object, read_body, validated
from services.gateway.errors import Answer, BodyMissing, Deprecated, MethodNotSupported, answer
from services.gateway.guard import request_id, send_answer
from services.gateway.methods import Method, Who
from shared.errors import Refusal
from shared.messages import Caller

MAX_BODY_BYTES: Final = 64 * 1024
CALL_SECONDS: Final = Histogram(
    "nest_gateway_call_seconds",
    "RPC calls answered, from the request's head to the answer's last byte.",
    ["version", "method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class Rpc:
    """Answers RPC calls.

    Args:
        asking: tells who calls, and asks the services.
    """

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def __call__(self, method: Method, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call of a method."""
        began = time.perf_counter()
        try:
            given = await self._answer(method, scope, receive)
        except Refusal as refusal:
            given = answer(refusal, request_id(scope))
        except Exception:
            # The guard answers; here it is only counted.
            _count(method, 500, time.perf_counter() - began)
            raise
        await send_answer(send, given)
        _count(method, given.status, time.perf_counter() - began)

    async def _answer(self, method: Method, scope: Scope, receive: Receive) -> Answer:
        if scope["method"] != "POST":
            raise MethodNotSupported(supported=["POST", "OPTIONS"])
        if method.message is None:
            raise Deprecated
        headers: Headers = dict(scope["headers"])
        caller = self._asking.caller(scope, headers)
        _admit(method, caller)
        body = await read_body(receive, MAX_BODY_BYTES)
        sent = _fields(method, caller, body)
        message = validated(method.message, sent, body)
        _admit_to(method, caller, message)
        called = (method.version, method.name)
        reply = await self._asking.ask(
            message, caller=caller, headers=headers, called=called, sent=sent, ordering=method.ordering
        )
        given = answered(reply, scope, headers)
        return _tagged(given, headers) if method.tagged and given.status == 200 else given  # noqa: PLR2004 -- OK


def _admit(method: Method, caller: Caller) -> None:
    """Refuse whoever may not call this at all, before anything they sent is read."""
    if method.who is Who.ANYONE or caller.kind == "internal":
        return
    if method.who is Who.INTERNAL or caller.kind != "user":
        raise AccessDenied


def _admit_to(method: Method, caller: Caller, message: Any) -> None:
    """Refuse a user who asks about another one."""
    if method.who is Who.SELF_OR_INTERNAL and caller.kind == "user" and message.user_id != caller.user_id:
        raise AccessDenied


def _fields(method: Method, caller: Caller, body: bytes) -> dict[str, Any]:
    """The object that was sent, or, where a user may leave it out, the user."""
    if body:
        return parse_object(body)
    if method.user_of_token and caller.user_id is not None:
        return {"user_id": caller.user_id}
    raise BodyMissing


def _tagged(given: Answer, headers: Headers) -> Answer:
    """The answer with its entity tag, or 304 for a client that has the same one (RFC 9110 sections 8.8.3, 13.1.2)."""
    tag = b'"%s"' % base64.urlsafe_b64encode(hashlib.sha256(given.body).digest()[:16]).rstrip(b"=")
    tags = (*given.headers, (b"etag", tag), (b"cache-control", b"private, no-cache"))
    known = [each.strip().removeprefix(b"W/") for each in headers.get(b"if-none-match", b"").split(b",")]
    return Answer(304, b"", tags) if tag in known else Answer(given.status, given.body, tags)


_observe: dict[tuple[str, str, int], Callable[[float], None]] = {}
"""Finding a metric by its labels costs more than counting, so what was found is kept."""


def _count(method: Method, status: int, seconds: float) -> None:
    key = (method.version, method.name, status)
    observe = _observe.get(key)
    if observe is None:
        observe = _observe[key] = CALL_SECONDS.labels(method.version, method.name, str(status)).observe
    observe(seconds)
