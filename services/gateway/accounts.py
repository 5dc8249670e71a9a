"""How do owners, applications and their users reach auth? Over routes that are older than Nest, and speak its errors.

Passwords and tokens stand in some of the paths. So no path of these routes goes anywhere but into its message: neither
into a log nor a span nor a metric, which know a route by its name.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.gateway.asking import Asking, Headers, Ordering, answered, unordered
from services.gateway.body import parse_object, read_body, validated
from services.gateway.errors import Answer, BodyMissing, ValidationFailed, answer
from services.gateway.guard import request_id, send_answer
from services.gateway.rpc import CALL_SECONDS, MAX_BODY_BYTES
from shared.bus.envelope import address_ordering_key
from shared.errors import NotFound, Refusal
from shared.messages import Command, Query
from shared.messages.auth.accounts import (
    CheckSignIn,
    CreateApplication,
    DeleteApplication,
    DeleteOwner,
    GetApplicationUser,
    GetOwner,
    LogInOwner,
    RegisterOwner,
    SignIn,
    SignInWithEmail,
    SignUp,
    UpdateApplicationUser,
    UpdateOwner,
)
from shared.sealing import Sealer

FAMILY: Final = "accounts"
"""Stands in metrics where RPC has its version."""
SENTENCES: Final = {
    "application_ended": "the application's end date has passed",
    "application_user_ended": "the user's end date has passed",
    "application_user_not_active": "the user is not active",
    "malformed_api_key": "this is not an API key",
    "not_logged_in": "the token is not valid, or not any more",
    "password_required": "the users of this application log in with a password",
    "wrong_credentials": "wrong e-mail address or password",
}
"""The ``message`` beside the code of whoever is not let in."""
_NOT_LET_IN: Final = frozenset({401, 403})
_NAME: Final = re.compile(r"{(\w+)}")


@dataclass(frozen=True, slots=True)
class Call:
    """A route.

    Attributes:
        verb: HTTP's.
        path: with the names of fields in braces that stand in it, each a whole segment, all of them at its end.
        message: what the body, or the fields in the path, become.
        status: of an answer that is no error.
        ordering: what orders the message among others of one subject.
    """

    verb: str
    path: str
    message: type[Command | Query]
    status: int = 200
    ordering: Ordering = unordered

    @property
    def name(self) -> str:
        """The path without what stands in it: ``appowner/uuid``."""
        return self.path.partition("/{")[0].strip("/")

    @property
    def fields(self) -> list[str]:
        """The fields in the path."""
        return _NAME.findall(self.path)


def _by_address(message: RegisterOwner | LogInOwner, sealer: Sealer) -> str:
    """Passwords for one address are looked at one after the other: whoever guesses takes one thread, not all."""
    return address_ordering_key(message.email, sealer)


def _by_users_address(message: SignUp | SignInWithEmail, sealer: Sealer) -> str:
    apikey = message.apikey.plain.encode("utf-8", "surrogatepass")
    return sealer.fingerprint(apikey, address_ordering_key(message.email, sealer).encode())


def _by_token(message: UpdateApplicationUser, sealer: Sealer) -> str:
    return sealer.fingerprint(b"token", message.token.plain.encode("utf-8", "surrogatepass"))


CALLS: Final = (
    Call("POST", "/appowner/create", RegisterOwner, ordering=_by_address),
    Call("GET", "/appowner/uuid/{uuid}", GetOwner),
    Call("POST", "/appowner/login", LogInOwner, ordering=_by_address),
    Call("POST", "/appowner/update", UpdateOwner, 202),
    Call("DELETE", "/appowner/delete", DeleteOwner),
    Call("POST", "/applications/create", CreateApplication),
    Call("DELETE", "/applications/delete", DeleteApplication, 202),
    Call("POST", "/users/signup", SignUp, 202, _by_users_address),
    Call("POST", "/users/signin", SignIn),
    Call("POST", "/users/signwithemail", SignInWithEmail, ordering=_by_users_address),
    Call("GET", "/users/islogged/{token}", CheckSignIn),
    Call("POST", "/users/userdata", GetApplicationUser),
    Call("PUT", "/users/update", UpdateApplicationUser, 202, _by_token),
)
CALLS_OF_OLD_CLIENTS: Final = (
    Call("GET", "/appowner/emailpassword/{email}/{password}", LogInOwner, ordering=_by_address),
)


def routes(asking: Asking, *, old_clients: bool) -> list[Route]:
    """The routes of owners, applications and their users.

    Args:
        asking: asks auth.
        old_clients: whether a password may stand in a path.
    """
    return [_route(call, asking) for call in (*CALLS, *(CALLS_OF_OLD_CLIENTS if old_clients else ()))]


def _route(call: Call, asking: Asking) -> Route:
    if not call.fields:
        return Route(call.path, Endpoint(call, asking), methods=[call.verb])
    # Whatever stands behind the name is read from the raw path: a slash may be part of a password.
    route = Route(f"/{call.name}/{{rest:path}}", Endpoint(call, asking), methods=[call.verb])
    # So may a line break, at which Starlette's own pattern would end.
    route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)
    return route


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
        try:
            given = await self._answer(scope, receive)
        except Refusal as refusal:
            given = answer(refusal, request_id(scope))
        await send_answer(send, given)
        CALL_SECONDS.labels(FAMILY, self._call.name, str(given.status)).observe(time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        call = self._call
        body = b"" if call.fields else await read_body(receive, MAX_BODY_BYTES)
        sent = _in_path(call, scope) if call.fields else _in_body(body)
        message = validated(call.message, sent, body)
        headers: Headers = dict(scope["headers"])
        reply = await self._asking.ask(
            message,
            # Who calls shows it in the body or the path; another service's ``authorization`` header says nothing here.
            caller=self._asking.stranger(scope),
            headers=headers,
            called=(FAMILY, call.name),
            sent=sent,
            ordering=call.ordering,
        )
        given = answered(reply, scope, headers)
        if given.status == 200:  # noqa: PLR2004 -- what ``answered`` gives where all is well
            given.status = call.status
        elif given.status in _NOT_LET_IN:
            given.body = _not_let_in(given.body)
        return given


def _in_body(body: bytes) -> dict[str, Any]:
    if not body:
        raise BodyMissing
    return parse_object(body)


def _in_path(call: Call, scope: Scope) -> dict[str, Any]:
    """The fields that stand in a path, from its raw form, where an encoded slash is still told from a real one."""
    raw = scope["raw_path"].split(b"/")[1:]
    named = [segment.encode() for segment in call.name.split("/")]
    values = raw[len(named) :]
    if raw[: len(named)] != named or len(values) != len(call.fields):
        raise NotFound
    return {name: _decoded(name, value) for name, value in zip(call.fields, values, strict=True)}


def _decoded(name: str, value: bytes) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise ValidationFailed(errors=[{"path": name, "message": "not UTF-8"}]) from None


def _not_let_in(body: bytes) -> bytes:
    """The error's body beside what these routes have always said."""
    error = json.loads(body)
    code = error["code"]
    return json.dumps({"auth": False, "message": SENTENCES.get(code, code.replace("_", " ")), **error}).encode()
