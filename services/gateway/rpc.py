"""How does one RPC call go, from the HTTP request to the HTTP answer?

Off Starlette's road, since every microsecond here is paid by every call: one ASGI function, one look into a table.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import Histogram
from starlette.types import Receive, Scope, Send

from services.gateway.access import Access, AccessDenied
from services.gateway.body import canonical, parse_object, read_body, validated
from services.gateway.client_ip import ClientIp
from services.gateway.errors import (
    Answer,
    BodyMissing,
    Deprecated,
    InvalidIdempotencyKey,
    MethodNotSupported,
    answer,
    answer_to_reply,
)
from services.gateway.guard import request_id, send_answer
from services.gateway.methods import Method, Who
from services.gateway.replies import Replies, Reply
from shared.envelope import Envelope, encode, unix_milliseconds
from shared.errors import Refusal
from shared.ids import derived_message_id, new_message_id
from shared.inbox import DONE
from shared.messages import Caller, Command, Query
from shared.sealed import Sealer
from shared.telemetry import Tracing, new_traceparent

MAX_BODY_BYTES: Final = 64 * 1024
CALL_SECONDS: Final = Histogram(
    "nest_gateway_call_seconds",
    "RPC calls answered, from the request's head to the answer's last byte.",
    ["version", "method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_IDEMPOTENCY_KEY: Final = re.compile(rb"[\x20-\x7e]{1,255}")
_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_REPLAYED: Final = (b"idempotent-replayed", b"true")

Headers = dict[bytes, bytes]


class Rpc:
    """Answers RPC calls.

    Args:
        access: tells who calls.
        client_ip: tells from where.
        replies: asks the services.
        sealer: seals secrets for them.
        tracing: where spans go.
    """

    def __init__(self, access: Access, client_ip: ClientIp, replies: Replies, sealer: Sealer, tracing: Tracing) -> None:
        self._access = access
        self._client_ip = client_ip
        self._replies = replies
        self._sealer = sealer
        self._tracing = tracing

    async def __call__(self, method: Method, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call of a method."""
        began = time.perf_counter()
        try:
            answered = await self._answer(method, scope, receive)
        except Refusal as refusal:
            answered = answer(refusal, request_id(scope))
        except Exception:
            # The guard answers; here it is only counted.
            _count(method, 500, time.perf_counter() - began)
            raise
        await send_answer(send, answered)
        _count(method, answered.status, time.perf_counter() - began)

    async def _answer(self, method: Method, scope: Scope, receive: Receive) -> Answer:
        if scope["method"] != "POST":
            raise MethodNotSupported(supported=["POST", "OPTIONS"])
        if method.message is None:
            raise Deprecated
        headers: Headers = dict(scope["headers"])
        caller = self._access.caller(headers.get(b"authorization"), self._client_ip.of(scope))
        _admit(method, caller)
        body = await read_body(receive, MAX_BODY_BYTES)
        sent = _fields(method, caller, body)
        message = validated(method.message, sent, body)
        _admit_to(method, caller, message)
        with self._tracing.span(method.name, _trace(headers.get(b"traceparent"))) as trace:
            envelope = self._envelope(method, message, caller, headers, sent)
            envelope.trace = trace
            reply = await self._replies.ask(envelope)
        return _answered(reply, headers, request_id(scope))

    def _envelope(
        self, method: Method, message: Command | Query, caller: Caller, headers: Headers, sent: dict[str, Any]
    ) -> Envelope:
        """The message as it travels. A client's key names it, so that a repeat is known as one."""
        kind = type(message)
        fingerprint = ""
        client_key = headers.get(b"idempotency-key")
        if client_key is not None and not _IDEMPOTENCY_KEY.fullmatch(client_key):
            raise InvalidIdempotencyKey
        if client_key is not None and issubclass(kind, Command):
            scope = (method.version, method.name, caller.kind, caller.user_id or "")
            message_id = derived_message_id("idempotency key", *scope, client_key.decode("ascii"))
            fingerprint = self._sealer.fingerprint(*(part.encode() for part in scope), canonical(sent))
        else:
            # A question has no effect that a second one could repeat.
            message_id = new_message_id()
        return Envelope(
            id=message_id,
            wire=kind.wire,
            topic=kind.topic,
            key=method.key(message),
            body=encode(message, self._sealer),
            time=unix_milliseconds(),
            caller=caller,
            fingerprint=fingerprint,
        )


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


def _trace(traceparent: bytes | None) -> str:
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        return traceparent.decode("ascii")
    return new_traceparent()


def _answered(reply: Reply, headers: Headers, request: str) -> Answer:
    if reply.kind != DONE:
        answered = answer_to_reply(reply.kind, reply.body, request)
    elif reply.body:
        answered = Answer(200, reply.body)
    else:
        answered = Answer(204)
    if reply.replayed and b"idempotency-key" in headers:
        answered.headers = (*answered.headers, _REPLAYED)
    return answered


_observe: dict[tuple[str, str, int], Callable[[float], None]] = {}
"""Finding a metric by its labels costs more than counting, so what was found is kept."""


def _count(method: Method, status: int, seconds: float) -> None:
    key = (method.version, method.name, status)
    observe = _observe.get(key)
    if observe is None:
        observe = _observe[key] = CALL_SECONDS.labels(method.version, method.name, str(status)).observe
    observe(seconds)
