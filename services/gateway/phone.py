"""Routes of phone login, at the root. Tokens and nonces are sent as plain text.

Code and nonce are part of one path, so a path appears only in the message: logs, spans and metrics use the route's
name.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from starlette.routing import Route

from services.gateway.endpoint import Dispatcher, MessageEndpoint, MessageRoute, Parse, Parsed, Render, by_field
from services.gateway.errors import BodyMissing, InvalidFields, ValidationFailed
from services.gateway.requests import HttpRequest, parse_object, validated
from services.gateway.responses import HttpResponse
from shared.errors import NotFound
from shared.messages import Caller, Command, Query
from shared.messages.auth.errors import InvalidPhoneNumber
from shared.messages.auth.phone import LogInForTesting, RegisterPhoneUser, SendPhoneCode, VerifyPhoneCode
from shared.phone_numbers import number_ordering_key
from shared.sealing import Sealer

GROUP: Final = "phone"
"""Label of these routes in metrics."""
PHONE_NUMBER: Final = "phone_number"
LOCALES: Final = "locales"
"""Field of a message that is set from ``accept-language``, never from the body."""


def _by_number(message: SendPhoneCode, sealer: Sealer) -> str:
    return number_ordering_key(message.phone_number, sealer)


def _by_nonce(message: VerifyPhoneCode | RegisterPhoneUser, sealer: Sealer) -> str:
    """Order all guesses of one code."""
    return sealer.fingerprint(b"nonce", message.nonce.plain.encode())


ROUTES: Final = (
    MessageRoute("POST", "/init", SendPhoneCode, _by_number, plain="nonce"),
    MessageRoute("POST", "/verify", VerifyPhoneCode, _by_nonce, plain="token"),
    MessageRoute("POST", "/register/{code}/{nonce}", RegisterPhoneUser, _by_nonce),
)
TEST_LOGIN: Final = MessageRoute("POST", "/login", LogInForTesting, by_field("userid"), plain="token")


def routes(dispatcher: Dispatcher, *, test_login: bool) -> list[Route]:
    """``POST /init``, ``/verify`` and ``/register/{code}/{nonce}``.

    Args:
        dispatcher: sends messages to auth.
        test_login: whether to include ``POST /login``, which logs any user in without a code.
    """
    return [_route(each, dispatcher) for each in (*ROUTES, *((TEST_LOGIN,) if test_login else ()))]


def _route(route: MessageRoute, dispatcher: Dispatcher) -> Route:
    # The ``authorization`` header is ignored: a client that logs in may still send an expired token.
    endpoint = MessageEndpoint(
        (GROUP, route.name),
        dispatcher=dispatcher,
        parse=_parser(route.message),
        ordering_key=route.ordering_key,
        render=None if route.plain is None else _plain_text(route.plain),
        topic=route.message.topic,
    )
    return Route(route.path, endpoint, methods=[route.verb])


def _parser(message: type[Command | Query]) -> Parse:
    """Parser of messages whose fields come from body, path and ``accept-language``."""

    def parse(request: HttpRequest, body: bytes, _caller: Caller) -> Parsed:
        if b"%" in request.scope["raw_path"]:
            # These paths need no encoding, and proxies disagree on whether an encoded slash is a separator.
            raise NotFound
        if not body:
            raise BodyMissing
        fields, path_fields = parse_object(body), request.scope["path_params"]
        errors = [
            {"path": name, "message": "Extra inputs are not permitted"}
            for name in (*path_fields, LOCALES)
            if name in fields
        ]
        if errors:
            raise InvalidFields(errors=errors)
        fields |= path_fields
        try:
            valid = validated(message, fields)
        except ValidationFailed as invalid:
            paths = {error["path"] for error in invalid.meta["errors"]}
            if PHONE_NUMBER in paths and PHONE_NUMBER in message.model_fields:
                raise InvalidPhoneNumber from None
            raise InvalidFields(**invalid.meta) from None
        if LOCALES in message.model_fields:
            # Not part of the fields: a repeat with the same idempotency key may have another ``accept-language``.
            valid = valid.model_copy(update={LOCALES: request.languages})
        return valid, fields

    return parse


def _plain_text(field: str) -> Render:
    """Renderer of a successful response as plain text: one field of the reply."""

    def render(_request: HttpRequest, response: HttpResponse) -> HttpResponse:
        if response.status == HTTPStatus.OK:
            response.body = json.loads(response.body)[field].encode()
            response.media_type = b"text/plain; charset=utf-8"
        return response

    return render
