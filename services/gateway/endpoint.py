"""HTTP endpoints: the one path from a request to its message, and from the reply to the response."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from prometheus_client import Histogram
from starlette.types import Receive, Scope, Send

from services.gateway.dispatch import Dispatcher, OrderingKey, unordered
from services.gateway.errors import AccessDenied, BodyMissing, MethodNotSupported
from services.gateway.requests import Fields, HttpRequest, parse_object, read_body, validated
from services.gateway.responses import HttpResponse, refusal_response, reply_response, send_response
from shared.errors import Refusal
from shared.messages import Caller, Command, Query

MAX_JSON_BODY_BYTES: Final = 64 * 1024
"""Largest body of an RPC call or of a route with a JSON body."""
CALL_SECONDS: Final = Histogram(
    "nest_gateway_call_seconds",
    "Duration of requests to RPC methods and other routes, from the request's head to the response's last byte.",
    ["version", "method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_FIELD: Final = re.compile(r"{(\w+)}")
Parse = Callable[[HttpRequest, bytes, Caller], tuple[Command | Query, Fields]]
"""From request, body and caller to the message, and the client's fields. It may raise any ``Refusal``."""
Render = Callable[[HttpRequest, HttpResponse], HttpResponse]
"""From the JSON response, which may be a refusal, to the one that is sent."""


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


class Endpoint(ABC):
    """ASGI app of one operation.

    It sends refusals as responses and measures the duration by status. An unexpected error is counted as a 500 and
    raised again: the middleware logs it and responds.

    Args:
        group: dated version of an RPC method, or the group of routes; the metric's label ``version``.
        name: of the method or route, without values from the path; the metric's label ``method``.
    """

    def __init__(self, group: str, name: str) -> None:
        self.operation = (group, name)
        self._observe: dict[int, Callable[[float], None]] = {}
        """By status: looking a metric up by its labels costs more than observing a value."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        began = time.perf_counter()
        request = HttpRequest(scope, receive, dict(scope["headers"]))
        try:
            try:
                response = await self.respond(request)
            except Refusal as refusal:
                response = self.render_refusal(request, refusal)
        except Exception:
            self._count(500, time.perf_counter() - began)
            raise
        await send_response(send, response)
        self._count(response.status, time.perf_counter() - began)

    @abstractmethod
    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Handle one request.

        Raises:
            Refusal: it becomes the response.
        """

    def render_refusal(self, request: HttpRequest, refusal: Refusal) -> HttpResponse:
        """Response for a refusal."""
        return refusal_response(refusal, request.id)

    def _count(self, status: int, seconds: float) -> None:
        observe = self._observe.get(status)
        if observe is None:
            observe = self._observe[status] = CALL_SECONDS.labels(*self.operation, str(status)).observe
        observe(seconds)


class MessageEndpoint(Endpoint):
    """Endpoint whose requests become messages.

    Args:
        dispatcher: identifies the caller and sends the message.
        group: as ``Endpoint``.
        name: as ``Endpoint``.
        parse: makes the message.
        access: who may call; None if the ``authorization`` header is ignored.
        ordering_key: computes the message's ordering key.
        render: turns the JSON response into the one that is sent.
        verb: the only HTTP method; None if the router has checked it.
        body_limit: in bytes; None if the body is not read.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        group: str,
        name: str,
        *,
        parse: Parse,
        access: Access | None = None,
        ordering_key: OrderingKey = unordered,
        render: Render | None = None,
        verb: str | None = None,
        body_limit: int | None = MAX_JSON_BODY_BYTES,
    ) -> None:
        super().__init__(group, name)
        self._dispatcher = dispatcher
        self._parse = parse
        self._access = access
        self._ordering_key = ordering_key
        self._render = render
        self._verb = verb
        self._body_limit = body_limit

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Dispatch the request's message and render its reply."""
        if self._verb is not None and request.scope["method"] != self._verb:
            raise MethodNotSupported(supported=[self._verb, "OPTIONS"])
        if self._access is None:
            caller = self._dispatcher.anonymous(request)
        else:
            caller = self._dispatcher.authenticated(request)
            self._check_caller(caller)
        body = b"" if self._body_limit is None else await read_body(request.receive, self._body_limit)
        message, fields = self._parse(request, body, caller)
        self._check_user(caller, message)
        reply = await self._dispatcher.dispatch(
            message, fields, request, caller=caller, operation=self.operation, ordering_key=self._ordering_key
        )
        response = reply_response(reply, request)
        return response if self._render is None else self._render(request, response)

    def render_refusal(self, request: HttpRequest, refusal: Refusal) -> HttpResponse:
        """Response for a refusal, rendered like the others."""
        response = super().render_refusal(request, refusal)
        return response if self._render is None else self._render(request, response)

    def _check_caller(self, caller: Caller) -> None:
        """Refuse callers without access before the body is read."""
        if self._access is Access.ANYONE or caller.kind == "internal":
            return
        if self._access is Access.INTERNAL or caller.kind != "user":
            raise AccessDenied

    def _check_user(self, caller: Caller, message: Any) -> None:
        """Refuse users who name another user."""
        if self._access is Access.SELF_OR_INTERNAL and caller.kind == "user" and message.user_id != caller.user_id:
            raise AccessDenied


def json_body(message: type[Command | Query]) -> Parse:
    """Parser of requests whose body is the message as one JSON object."""

    def parse(_request: HttpRequest, body: bytes, _caller: Caller) -> tuple[Command | Query, Fields]:
        if not body:
            raise BodyMissing
        fields = parse_object(body)
        return validated(message, fields, body), fields

    return parse
