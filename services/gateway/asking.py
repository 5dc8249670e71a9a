"""How does what a client asks for become a message, and its reply an answer? The same for RPC and for other routes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from starlette.types import Scope

from services.gateway.access import Access
from services.gateway.body import canonical
from services.gateway.client_ip import ClientIp
from services.gateway.errors import Answer, InvalidIdempotencyKey, answer_to_reply
from services.gateway.guard import request_id
from services.gateway.replies import Replies, Reply
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.inbox import DONE
from shared.ids import derived_message_id, new_message_id
from shared.messages import Caller, Command, Query
from shared.sealing import Sealer
from shared.telemetry import Tracing, new_traceparent

_IDEMPOTENCY_KEY: Final = re.compile(rb"[\x20-\x7e]{1,255}")
_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_REPLAYED: Final = (b"idempotent-replayed", b"true")

Headers = dict[bytes, bytes]
Ordering = Callable[[Any, Sealer], str]
"""What orders a message among others of one subject: its key, readable in Kafka, hence a keyed hash of what is nobody's
business. Empty where there is no order to keep."""


def unordered(_message: Command | Query, _sealer: Sealer) -> str:
    """Messages of which none waits for another."""
    return ""


class Asking:
    """Asks the services on behalf of clients.

    Args:
        access: tells who calls.
        client_ip: tells from where.
        replies: asks over the bus.
        sealer: seals secrets for the services.
        tracing: where spans go.
    """

    def __init__(self, access: Access, client_ip: ClientIp, replies: Replies, sealer: Sealer, tracing: Tracing) -> None:
        self._access = access
        self._client_ip = client_ip
        self._replies = replies
        self._sealer = sealer
        self._tracing = tracing

    def caller(self, scope: Scope, headers: Headers) -> Caller:
        """Who calls, by the ``authorization`` header.

        Raises:
            Unauthorized, AccessDenied: as ``Access.caller``.
        """
        return self._access.caller(headers.get(b"authorization"), self._client_ip.of(scope))

    def stranger(self, scope: Scope) -> Caller:
        """Somebody at an address: for routes that look at no ``authorization`` header."""
        return Caller(client_ip=self._client_ip.of(scope))

    async def ask(
        self,
        message: Command | Query,
        *,
        caller: Caller,
        headers: Headers,
        called: tuple[str, ...],
        sent: dict[str, Any],
        ordering: Ordering = unordered,
    ) -> Reply:
        """Put a message on the bus and await its reply.

        Args:
            message: what is asked for.
            caller: who asks.
            headers: the request's; ``idempotency-key`` and ``traceparent`` are read.
            called: names the method or the route, its own name last: an ``Idempotency-Key`` holds for one of them. No
                path that a client wrote: it would be in spans.
            sent: what the client sent, by which a key with another body is known.
            ordering: makes its key.

        Raises:
            InvalidIdempotencyKey: the header is no such key.
            TooManyRequests, Unavailable, ReplyTimeout: as ``Replies.ask``.
        """
        with self._tracing.span(called[-1], _trace(headers.get(b"traceparent"))) as trace:
            client_key = headers.get(b"idempotency-key")
            if client_key is not None and not _IDEMPOTENCY_KEY.fullmatch(client_key):
                raise InvalidIdempotencyKey
            # A question has no effect that a second one could repeat.
            named = client_key if isinstance(message, Command) else None
            message_id, fingerprint = self._identity(named, (*called, caller.kind, caller.user_id or ""), sent)
            envelope = Envelope(
                id=message_id,
                wire=message.wire,
                topic=message.topic,
                key=ordering(message, self._sealer),
                body=encode(message, self._sealer),
                time=unix_milliseconds(),
                caller=caller,
                trace=trace,
                fingerprint=fingerprint,
            )
            return await self._replies.ask(envelope)

    def _identity(self, client_key: bytes | None, scope: tuple[str, ...], sent: dict[str, Any]) -> tuple[str, str]:
        """The message's id and what tells a repeat from another request. A client's key names it."""
        if client_key is None:
            return new_message_id(), ""
        message_id = derived_message_id("idempotency key", *scope, client_key.decode("ascii"))
        return message_id, self._sealer.fingerprint(*(part.encode() for part in scope), canonical(sent))


def answered(reply: Reply, scope: Scope, headers: Headers) -> Answer:
    """A reply as HTTP carries it: JSON, 204 where there is no result, or a refusal."""
    if reply.kind != DONE:
        given = answer_to_reply(reply.kind, reply.body, request_id(scope))
    elif reply.body:
        given = Answer(200, reply.body)
    else:
        given = Answer(204)
    if reply.replayed and b"idempotency-key" in headers:
        given.headers = (*given.headers, _REPLAYED)
    return given


def _trace(traceparent: bytes | None) -> str:
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        return traceparent.decode("ascii")
    return new_traceparent()
