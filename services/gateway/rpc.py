"""RPC endpoints: one per method of the table in ``methods``."""

from __future__ import annotations

from http import HTTPStatus

from services.gateway.dispatch import Dispatcher
from services.gateway.endpoint import MessageEndpoint, Parse, json_body
from services.gateway.errors import Deprecated
from services.gateway.methods import PATHS, Method
from services.gateway.requests import Fields, HttpRequest, validated
from services.gateway.responses import HttpResponse, entity_tag, if_none_match
from shared.messages import Caller, Command, Query


def endpoints(dispatcher: Dispatcher) -> dict[str, MessageEndpoint]:
    """The endpoints by path."""
    return {path: _endpoint(method, dispatcher) for path, method in PATHS.items()}


def _endpoint(method: Method, dispatcher: Dispatcher) -> MessageEndpoint:
    if method.message is None:
        return MessageEndpoint(
            dispatcher, method.version, method.name, parse=_refuse_deprecated, verb="POST", body_limit=None
        )
    return MessageEndpoint(
        dispatcher,
        method.version,
        method.name,
        parse=_user_of_token_or(json_body(method.message), method.message)
        if method.user_of_token
        else json_body(method.message),
        access=method.access,
        ordering_key=method.ordering_key,
        render=_with_entity_tag if method.entity_tag else None,
        verb="POST",
    )


def _refuse_deprecated(_request: HttpRequest, _body: bytes, _caller: Caller) -> tuple[Command | Query, Fields]:
    raise Deprecated


def _user_of_token_or(parse_body: Parse, message: type[Command | Query]) -> Parse:
    """Parser that takes ``user_id`` from the bearer token if the body is empty."""

    def parse(request: HttpRequest, body: bytes, caller: Caller) -> tuple[Command | Query, Fields]:
        if body or caller.user_id is None:
            return parse_body(request, body, caller)
        fields = {"user_id": caller.user_id}
        return validated(message, fields), fields

    return parse


def _with_entity_tag(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Add an ``etag``; 304 if the client already has this content."""
    if response.status != HTTPStatus.OK:
        return response
    tag = entity_tag(response.body)
    headers = (*response.headers, (b"etag", tag), (b"cache-control", b"private, no-cache"))
    if tag in if_none_match(request):
        return HttpResponse(304, headers=headers)
    return HttpResponse(200, response.body, headers)
