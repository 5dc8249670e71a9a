"""Dispatch: a client's command or query becomes a message on the bus, and the call waits for its reply."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from services.gateway.authentication import Authenticator
from services.gateway.client_ip import ClientIp
from services.gateway.errors import InvalidIdempotencyKey
from services.gateway.requests import Fields, HttpRequest, canonical
from services.gateway.rpc_client import Reply, RpcClient
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.ids import derived_message_id, new_message_id
from shared.messages import Caller, Command, Query
from shared.sealing import Sealer
from shared.telemetry import Tracing, new_traceparent

OrderingKey = Callable[[Any, Sealer], str]
"""Ordering key of a message. Keys are readable in Kafka, so personal data and secrets are hashed with the sealer's
fingerprint. Empty if the message may be handled in any order."""
_IDEMPOTENCY_KEY: Final = re.compile(rb"[\x20-\x7e]{1,255}")
_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def unordered(_message: Command | Query, _sealer: Sealer) -> str:
    """No ordering key."""
    return ""


class Dispatcher:
    """Identifies callers and dispatches their commands and queries.

    Args:
        authenticator: reads the ``authorization`` header.
        client_ip: determines the client's IP address.
        rpc_client: calls the services.
        sealer: seals secrets for the services.
        tracing: receives a span per call.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        client_ip: ClientIp,
        rpc_client: RpcClient,
        sealer: Sealer,
        tracing: Tracing,
    ) -> None:
        self._authenticator = authenticator
        self._client_ip = client_ip
        self._rpc_client = rpc_client
        self._sealer = sealer
        self._tracing = tracing

    def authenticated(self, request: HttpRequest) -> Caller:
        """Caller according to the ``authorization`` header.

        Raises:
            Unauthorized, AccessDenied, Unavailable: as ``Authenticator.caller``.
        """
        return self._authenticator.caller(request.headers.get(b"authorization"), self._client_ip.of(request.scope))

    def anonymous(self, request: HttpRequest) -> Caller:
        """Caller of a route that ignores the ``authorization`` header: only the IP address is known."""
        return Caller(client_ip=self._client_ip.of(request.scope))

    async def dispatch(
        self,
        message: Command | Query,
        fields: Fields,
        request: HttpRequest,
        *,
        caller: Caller,
        operation: tuple[str, str],
        ordering_key: OrderingKey = unordered,
    ) -> Reply:
        """Send a message and wait for its reply.

        Args:
            message: the command or query.
            fields: the client's object; another object under the same idempotency key is detected by its hash.
            request: its headers ``idempotency-key`` and ``traceparent`` are used.
            caller: of the request.
            operation: group and name of the method or route. An idempotency key belongs to one operation and caller.
                The name is the span's name, so it must not contain values from the path.
            ordering_key: computes the message's ordering key.

        Raises:
            InvalidIdempotencyKey: the header is malformed.
            TooManyRequests, Unavailable, ReplyTimeout: as ``RpcClient.call``.
        """
        headers = request.headers
        with self._tracing.span(operation[-1], _trace(headers.get(b"traceparent"))) as trace:
            idempotency_key = headers.get(b"idempotency-key")
            if idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
                raise InvalidIdempotencyKey
            if idempotency_key is None or not isinstance(message, Command):
                # A query has no effect, so it may be repeated without a key.
                message_id, fingerprint = new_message_id(), ""
            else:
                scope = (*operation, caller.kind, caller.user_id or "")
                message_id = derived_message_id("idempotency key", *scope, idempotency_key.decode("ascii"))
                fingerprint = self._sealer.fingerprint(*(part.encode() for part in scope), canonical(fields))
            envelope = Envelope(
                id=message_id,
                wire=message.wire,
                topic=message.topic,
                key=ordering_key(message, self._sealer),
                body=encode(message, self._sealer),
                time=unix_milliseconds(),
                caller=caller,
                trace=trace,
                fingerprint=fingerprint,
            )
            return await self._rpc_client.call(envelope)


def _trace(traceparent: bytes | None) -> str:
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        return traceparent.decode("ascii")
    return new_traceparent()
