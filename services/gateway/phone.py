"""How does a phone-first app log its users in? Four routes at the root; tokens and nonces are answered as plain text.

A code and its nonce stand in one of the paths. So no path of these routes goes anywhere but into its message: neither
into a log nor a span nor a metric, which know a route by its name.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.gateway.accept_language import accepted
from services.gateway.asking import Asking, Headers, Ordering, answered
from services.gateway.body import parse_object, read_body, validated
from services.gateway.errors import Answer, BodyMissing, ValidationFailed, answer
from services.gateway.guard import request_id
from services.gateway.rpc import CALL_SECONDS, MAX_BODY_BYTES
from shared.errors import NotFound, Refusal
from shared.messages import Command
from shared.messages.auth.phone import LogInForTesting, RegisterPhoneUser, SendPhoneCode, VerifyPhoneCode
from shared.sealing import Sealer

FAMILY: Final = "phone"
"""Stands in metrics where RPC has its version."""
PHONE_NUMBER: Final = "phone_number"
LOCALES: Final = "locales"
"""The field of a message for the languages that ``accept-language`` names; none of a body's."""


class InvalidPhoneNumber(Refusal):
    """No text at all where a phone number belongs; of a text, auth says in the same words that it is none."""


@dataclass(frozen=True, slots=True)
class Call:
    """A route.

    Attributes:
        name: its path's first segment.
        message: what its body and path become.
        ordering: what orders the message among others of one subject.
        plain: the one field of the reply that is the answer, as plain text; None where the answer is JSON.
        path: what follows the name, with the fields in braces that stand in it.
    """

    name: str
    message: type[Command]
    ordering: Ordering
    plain: str | None
    path: str = ""


def _by_number(message: SendPhoneCode, sealer: Sealer) -> str:
    # Keyed: there are few enough numbers to try them all.
    return sealer.fingerprint(b"phone number", "".join(filter(str.isdecimal, message.phone_number)).encode())


def _by_nonce(message: VerifyPhoneCode | RegisterPhoneUser, sealer: Sealer) -> str:
    """Guesses at one code come one after the other."""
    return sealer.fingerprint(b"nonce", message.nonce.plain.encode("utf-8", "surrogatepass"))


def _by_user(message: LogInForTesting, _sealer: Sealer) -> str:
    return message.userid


CALLS: Final = (
    Call("init", SendPhoneCode, _by_number, "nonce"),
    Call("verify", VerifyPhoneCode, _by_nonce, "token"),
    Call("register", RegisterPhoneUser, _by_nonce, None, "/{code}/{nonce}"),
)
TEST_LOGIN: Final = Call("login", LogInForTesting, _by_user, "token")


def routes(asking: Asking, *, test_login: bool) -> list[Route]:
    """``POST /init``, ``/verify`` and ``/register/{code}/{nonce}``.

    Args:
        asking: asks auth.
        test_login: whether there is ``POST /login`` as well, which logs anybody in.
    """
    calls = (*CALLS, TEST_LOGIN) if test_login else CALLS
    return [Route(f"/{call.name}{call.path}", Endpoint(call, asking), methods=["POST"]) for call in calls]


class Endpoint:
    """Answers the calls of one route.

    Args:
        call: which.
        asking: asks auth.
    """

    def __init__(self, call: Call, asking: Asking) -> None:
        self._call = call
        self._asking = asking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        began = time.perf_counter()
        given, media_type = await self._given(Request(scope, receive))
        response = Response(given.body, given.status, media_type=media_type)
        response.raw_headers.extend(given.headers)
        await response(scope, receive, send)
        CALL_SECONDS.labels(FAMILY, self._call.name, str(given.status)).observe(time.perf_counter() - began)

    async def _given(self, request: Request) -> tuple[Answer, str]:
        try:
            given = await self._answer(request)
        except Refusal as refusal:
            given = answer(refusal, request_id(request.scope))
        if given.status != 200 or self._call.plain is None:  # noqa: PLR2004 -- what ``answered`` gives where all is well
            return given, "application/json"
        given.body = json.loads(given.body)[self._call.plain].encode()
        return given, "text/plain"

    async def _answer(self, request: Request) -> Answer:
        if b"%" in request.scope["raw_path"]:
            # Nothing in these paths needs encoding; an encoded slash is told from a real one by some and not by others.
            raise NotFound
        body = await read_body(request.receive, MAX_BODY_BYTES)
        if not body:
            raise BodyMissing
        sent = _whole(parse_object(body), request.path_params)
        message = self._message(sent, accepted(request.headers.get("accept-language", "")))
        headers: Headers = dict(request.scope["headers"])
        reply = await self._asking.ask(
            message,
            # Whoever logs in may still carry an old token, which must not be in the way.
            caller=self._asking.stranger(request.scope),
            headers=headers,
            called=(FAMILY, self._call.name),
            sent=sent,
            ordering=self._call.ordering,
        )
        return answered(reply, request.scope, headers)

    def _message(self, sent: dict[str, Any], locales: tuple[str, ...]) -> Command:
        try:
            message = validated(self._call.message, sent)
        except ValidationFailed as wrong:
            # A number of another JSON type, or none, is no phone number.
            if any(error["path"] == PHONE_NUMBER for error in wrong.meta["errors"]) and PHONE_NUMBER in (
                self._call.message.model_fields
            ):
                raise InvalidPhoneNumber from None
            raise
        # What a code's text is written in. Not said in the body, so that a repeat is one whatever its headers say.
        return message.model_copy(update={LOCALES: locales}) if LOCALES in self._call.message.model_fields else message


def _whole(sent: dict[str, Any], in_path: dict[str, Any]) -> dict[str, Any]:
    """The object that was sent, with what stands in the path.

    Raises:
        ValidationFailed: the object says that as well, or what a header says.
    """
    elsewhere = [
        {"path": name, "message": "Extra inputs are not permitted"} for name in (*in_path, LOCALES) if name in sent
    ]
    if elsewhere:
        raise ValidationFailed(errors=elsewhere)
    return {**sent, **in_path}
