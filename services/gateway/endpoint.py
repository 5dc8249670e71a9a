"""HTTP endpoints: from a request to its message on the bus, and from the reply to the response."""

from __future__ import annotations

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from prometheus_client import Histogram
from starlette.types import Receive, Scope, Send

from services.gateway.authentication import Authenticator
from services.gateway.errors import AccessDenied, BodyMissing, InvalidIdempotencyKey, MethodNotSupported
from services.gateway.http_calls import call_of
from services.gateway.requests import (
    Fields,
    HttpRequest,
    Network,
    canonical,
    client_ip,
    parse_object,
    read_body,
    validated,
)
from services.gateway.responses import HttpResponse, refusal_response, reply_response, send_response
from services.gateway.rpc_client import RpcClient, RpcReply
from services.gateway.shared_queries import SharedQueries
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.inbox import DONE
from shared.errors import Refusal
from shared.ids import derived_message_id, new_message_id
from shared.messages import Caller, Command, Query, Reply
from shared.metrics import labelled
from shared.sealing import Sealer

MAX_JSON_BODY_BYTES: Final = 64 * 1024
"""Largest body of an RPC call or of a route with a JSON body."""
CALL_SECONDS: Final = Histogram(
    "nest_gateway_call_seconds",
    "Duration of requests to RPC methods and other routes, from the request's head to the response's last byte.",
    ["version", "method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_FIELD: Final = re.compile(r"{(\w+)}")
_IDEMPOTENCY_KEY: Final = re.compile(rb"[\x20-\x7e]{1,255}")
Parsed = tuple[Command | Query, Fields]
"""A message, and the client's fields. Their hash detects another request under the same idempotency key."""
Parse = Callable[[HttpRequest, bytes, Caller], Parsed]
"""From request, body and caller to the message. It may raise any ``Refusal``."""
Complete = Callable[[Any, Caller, HttpResponse], HttpResponse]
"""From message, caller and the JSON response, which may be a refusal, to the one with what the gateway adds."""
Render = Callable[[HttpRequest, HttpResponse], HttpResponse]
"""From the JSON response, which may be a refusal, to the one that is sent."""
OwnAnswers = dict[type[Query], Callable[[Any], Awaitable[Reply]]]
OrderingKey = Callable[[Any, Sealer], str]
"""Ordering key of a message. Keys are readable in Kafka, so personal data and secrets are hashed with the sealer's
fingerprint. Empty if the message may be handled in any order."""


def unordered(_message: Command | Query, _sealer: Sealer) -> str:
    """No ordering key."""
    return ""


def by_field(name: str) -> OrderingKey:
    """Ordering key that is the value of a field, which must be an ID."""
    return lambda message, _sealer: getattr(message, name)


class Access(Enum):
    """Callers of a method."""

    ANYONE = "anyone"
    SELF_OR_INTERNAL = "self or internal"
    """A bearer token whose user is the ``user_id`` of the request, or the internal key."""
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class MessageRoute:
    """A route whose requests become messages.

    Attributes:
        verb: HTTP method.
        path: its fields, in braces, are whole segments at its end.
        message: class of the command or query.
        ordering_key: computes its ordering key.
        status: of a successful response.
        plain: the field of the reply that is the response as plain text; None if the response is JSON.
    """

    verb: str
    path: str
    message: type[Command | Query]
    ordering_key: OrderingKey = unordered
    status: int = 200
    plain: str | None = None

    @property
    def name(self) -> str:
        """The path without its fields: ``appowner/uuid``."""
        return self.path.partition("/{")[0].strip("/")

    @property
    def fields(self) -> list[str]:
        """Names of the fields in the path."""
        return _FIELD.findall(self.path)


@dataclass(eq=False)
class Endpoint(ABC):
    """ASGI app of one operation.

    It sends refusals as responses and measures the duration by status. An unexpected error is counted as a 500 and
    raised again: the middleware logs it and responds.

    Attributes:
        operation: dated version of an RPC method, or group of routes, and the name of the method or route, without
            values from the path. They are the labels ``version`` and ``method`` of the metric.
    """

    operation: tuple[str, str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        began = time.perf_counter()
        request = HttpRequest(scope, receive, dict(scope["headers"]))
        call = call_of(scope)
        call.operate(self.operation)
        try:
            try:
                response = await self.respond(request)
            except Refusal as refusal:
                call.outcome = refusal.code
                response = self.render_refusal(request, refusal)
        except Exception:
            self._count(500, time.perf_counter() - began)
            raise
        await send_response(send, response)
        self._count(response.status, time.perf_counter() - began)

    @abstractmethod
    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Handle one request. A ``Refusal`` that it raises becomes the response."""

    def render_refusal(self, request: HttpRequest, refusal: Refusal) -> HttpResponse:
        """Response for a refusal."""
        return refusal_response(refusal, request.id, self.operation[0])

    def _count(self, status: int, seconds: float) -> None:
        labelled(CALL_SECONDS, *self.operation, str(status)).observe(seconds)


@dataclass(eq=False, kw_only=True)
class MessageEndpoint(Endpoint):
    """Endpoint whose requests become messages.

    Attributes:
        dispatcher: identifies the caller and sends the message.
        parse: creates the message.
        access: who may call; None if the ``authorization`` header is ignored.
        credential_in_body: whether everything but an internal key in that header is ignored.
        ordering_key: computes the message's ordering key.
        complete: adds what only the gateway knows to the JSON response.
        render: turns the JSON response into the one that is sent.
        verb: the only HTTP method; None if the router has checked it.
        body_limit: in bytes; None if the body is not read.
        topic: of its messages; None if no request becomes a message.
    """

    dispatcher: Dispatcher
    parse: Parse
    access: Access | None = None
    credential_in_body: bool = False
    ordering_key: OrderingKey = unordered
    complete: Complete | None = None
    render: Render | None = None
    verb: str | None = None
    body_limit: int | None = MAX_JSON_BODY_BYTES
    topic: str | None

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Dispatch the request's message and render its reply."""
        if self.verb is not None and request.scope["method"] != self.verb:
            raise MethodNotSupported(supported=[self.verb, "OPTIONS"])
        # First of all: under overload the work for a call that is refused would cost more than the refusal.
        if self.topic is not None and (refusal := self.dispatcher.rpc_client.overload(self.topic)) is not None:
            raise refusal
        if self.access is None:
            caller = self.dispatcher.anonymous(request)
        elif self.credential_in_body:
            caller = self.dispatcher.internal_or_anonymous(request)
        else:
            caller = self.dispatcher.authenticated(request)
            self._check_caller(caller)
        body = b"" if self.body_limit is None else await read_body(request.receive, self.body_limit)
        message, fields = self.parse(request, body, caller)
        self._check_user(caller, message)
        reply = await self.dispatcher.dispatch(
            message, fields, request, caller, operation=self.operation, ordering_key=self.ordering_key
        )
        response = reply_response(reply, request, self.operation[0])
        if reply.kind != DONE:
            call_of(request.scope).outcome = str(json.loads(reply.body)["code"])
        if self.complete is not None:
            response = self.complete(message, caller, response)
        return response if self.render is None else self.render(request, response)

    def render_refusal(self, request: HttpRequest, refusal: Refusal) -> HttpResponse:
        """Response for a refusal, rendered like the others."""
        response = super().render_refusal(request, refusal)
        return response if self.render is None else self.render(request, response)

    def _check_caller(self, caller: Caller) -> None:
        """Refuse callers without access before the body is read."""
        if self.access is Access.ANYONE or caller.kind == "internal":
            return
        if self.access is Access.INTERNAL or caller.kind != "user":
            raise AccessDenied

    def _check_user(self, caller: Caller, message: Any) -> None:
        """Refuse users who name another user."""
        if self.access is Access.SELF_OR_INTERNAL and caller.kind == "user" and message.user_id != caller.user_id:
            raise AccessDenied


def json_body(message: type[Command | Query]) -> Parse:
    """Parser of requests whose body is the message as one JSON object."""

    def parse(_request: HttpRequest, body: bytes, _caller: Caller) -> Parsed:
        if not body:
            raise BodyMissing
        fields = parse_object(body)
        return validated(message, fields, body), fields

    return parse


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Identifies callers, and calls services with their commands and queries.

    Attributes:
        shared_queries: combines equal queries of anonymous callers, whose class is ``shared``.
        own_answers: the answers of the gateway itself, by the class of the query.
    """

    authenticator: Authenticator
    trusted_proxies: Sequence[Network]
    rpc_client: RpcClient
    shared_queries: SharedQueries
    sealer: Sealer
    own_answers: OwnAnswers = field(default_factory=dict)

    def authenticated(self, request: HttpRequest) -> Caller:
        """Caller according to the ``authorization`` header.

        Raises:
            Unauthorized, AccessDenied, Unavailable: as ``Authenticator.caller``.
        """
        authorization = request.headers.get(b"authorization")
        return self.authenticator.caller(authorization, client_ip(request.scope, self.trusted_proxies))

    def internal_or_anonymous(self, request: HttpRequest) -> Caller:
        """Caller of a method whose credential is in the body.

        Raises:
            AccessDenied: as ``Authenticator.internal_or_anonymous``.
        """
        authorization = request.headers.get(b"authorization")
        return self.authenticator.internal_or_anonymous(authorization, client_ip(request.scope, self.trusted_proxies))

    def anonymous(self, request: HttpRequest) -> Caller:
        """Caller of a route that ignores the ``authorization`` header: only the IP address is known."""
        return Caller(client_ip=client_ip(request.scope, self.trusted_proxies))

    async def dispatch(
        self,
        message: Command | Query,
        fields: Fields,
        request: HttpRequest,
        caller: Caller,
        *,
        operation: tuple[str, str],
        ordering_key: OrderingKey,
    ) -> RpcReply:
        """Send a message and wait for its reply.

        Args:
            message: the command or query.
            fields: as in ``Parsed``.
            request: its header ``idempotency-key`` is used.
            caller: of the request.
            operation: as in ``Endpoint``. An idempotency key belongs to one operation and caller.
            ordering_key: computes the message's ordering key.

        Raises:
            InvalidIdempotencyKey: the header is malformed.
            TooManyRequests, Unavailable, ReplyTimeout: as ``RpcClient.call``.
        """
        idempotency_key = request.headers.get(b"idempotency-key")
        if idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            raise InvalidIdempotencyKey
        if isinstance(message, Query) and not message.topic:
            answer = await self.own_answers[type(message)](message)
            return RpcReply(DONE, answer.model_dump_json().encode(), replayed=False)
        if idempotency_key is None or not isinstance(message, Command):
            # A query has no effect, so it may be repeated without a key.
            message_id, fingerprint = new_message_id(), ""
        else:
            scope = (*operation, caller.kind, caller.user_id or "")
            message_id = derived_message_id("idempotency key", *scope, idempotency_key.decode("ascii"))
            fingerprint = self.sealer.fingerprint(*(part.encode() for part in scope), canonical(fields))
        call = call_of(request.scope)
        call.message_id = message_id
        envelope = Envelope(
            id=message_id,
            wire=message.wire,
            topic=message.topic,
            key=ordering_key(message, self.sealer),
            body=encode(message, self.sealer),
            time=unix_milliseconds(),
            caller=caller,
            trace=call.trace,
            request=request.id,
            fingerprint=fingerprint,
        )
        if message.shared and caller.kind == "anonymous":
            query = self.shared_queries.join(envelope)
            call.message_id = query.envelope.id
            return await self.shared_queries.call(query)
        return await self.rpc_client.call(envelope)
