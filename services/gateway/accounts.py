"""Routes of owners, applications and their users, and the page that explains them.

These routes are older than Nest and have their own error format. Passwords and tokens are part of some paths, so a path
appears only in the message: logs, spans and metrics use the route's name.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from starlette.routing import Route

from services.gateway.account_pages import by_link
from services.gateway.cached_content import HTML, CachedContent, page_headers, page_templates, template_text
from services.gateway.endpoint import (
    MAX_JSON_BODY_BYTES,
    Dispatcher,
    MessageEndpoint,
    MessageRoute,
    Parse,
    Parsed,
    Render,
    json_body,
)
from services.gateway.errors import ValidationFailed
from services.gateway.requests import Fields, HttpRequest, validated
from services.gateway.responses import HttpResponse
from shared.email_addresses import address_ordering_key
from shared.errors import NotFound
from shared.messages import Caller, Command, Query, Sealed
from shared.messages.auth.account_links import (
    ForgotOwnerPassword,
    ForgotPassword,
    LinkOfUser,
    ResetPassword,
    SendVerification,
    VerifyAddress,
)
from shared.messages.auth.accounts import (
    CheckSignIn,
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
    min_password_length,
)
from shared.messages.auth.applications import CreateApplication, DeleteApplication, UpdateApplication
from shared.messages.types import normal_api_key
from shared.sealing import Sealer

GROUP: Final = "accounts"
"""Label of these routes in metrics."""
PAGE_PATHS: Final = ("/", "/accounts")
"""In embedded mode another page is at ``/``."""
_REJECTED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


def _by_address(message: RegisterOwner | LogInOwner | ForgotOwnerPassword, sealer: Sealer) -> str:
    """Order password checks of one address: an attacker who guesses passwords occupies one thread, not all."""
    return address_ordering_key(message.email, sealer)


def _by_owner(message: UpdateOwner, sealer: Sealer) -> str:
    return sealer.fingerprint(b"owner", message.uuid.plain.lower().encode())


def _by_key(message: DeleteApplication | UpdateApplication, sealer: Sealer) -> str:
    return sealer.fingerprint(b"api key", normal_api_key(message.apikey.plain).encode())


def _by_address_of_user(message: SignUp | SignInWithEmail | LinkOfUser, sealer: Sealer) -> str:
    """Order password checks of one address and application, whatever the spelling of either."""
    application = normal_api_key(message.apikey.plain).encode()
    return sealer.fingerprint(application, address_ordering_key(message.email, sealer).encode())


def _by_token(message: UpdateApplicationUser, sealer: Sealer) -> str:
    return sealer.fingerprint(b"token", message.token.plain.encode())


OWNER_TOKEN: Final = "owner_token"  # noqa: S105 -- the name of a field
"""Field of a message that is set from the header ``authorization``, never from the body."""
ROUTES: Final = (
    MessageRoute("POST", "/appowner/create", RegisterOwner, _by_address),
    MessageRoute("GET", "/appowner/uuid/{uuid}", GetOwner),
    MessageRoute("POST", "/appowner/login", LogInOwner, _by_address),
    MessageRoute("POST", "/appowner/update", UpdateOwner, _by_owner, status=202),
    MessageRoute("DELETE", "/appowner/delete", DeleteOwner),
    MessageRoute("POST", "/applications/create", CreateApplication),
    MessageRoute("DELETE", "/applications/delete", DeleteApplication, _by_key, status=202),
    MessageRoute("POST", "/appowner/forgot", ForgotOwnerPassword, _by_address, status=202),
    MessageRoute("POST", "/appowner/reset", ResetPassword, by_link, status=202),
    MessageRoute("POST", "/applications/update", UpdateApplication, _by_key, status=202),
    MessageRoute("POST", "/users/signup", SignUp, _by_address_of_user, status=202),
    MessageRoute("POST", "/users/signin", SignIn),
    MessageRoute("POST", "/users/signwithemail", SignInWithEmail, _by_address_of_user),
    MessageRoute("GET", "/users/islogged/{token}", CheckSignIn),
    MessageRoute("POST", "/users/userdata", GetApplicationUser),
    MessageRoute("PUT", "/users/update", UpdateApplicationUser, _by_token, status=202),
    MessageRoute("POST", "/users/forgot", ForgotPassword, _by_address_of_user, status=202),
    MessageRoute("POST", "/users/reset", ResetPassword, by_link, status=202),
    MessageRoute("POST", "/users/sendverification", SendVerification, _by_address_of_user, status=202),
    MessageRoute("POST", "/users/verify", VerifyAddress, by_link, status=202),
)
OLD_CLIENT_ROUTES: Final = (MessageRoute("GET", "/appowner/emailpassword/{email}/{password}", LogInOwner, _by_address),)
"""Routes with a password in the path, only for old clients."""


def routes(dispatcher: Dispatcher, issuer: str, *, old_clients: bool) -> list[Route]:
    """The routes and the page.

    Args:
        dispatcher: sends messages to auth.
        issuer: the URL under which clients reach this gateway, for the page's examples.
        old_clients: whether to include the routes with a password in the path, and the errors' fields of old clients.
    """
    served = (*ROUTES, *OLD_CLIENT_ROUTES) if old_clients else ROUTES
    style = template_text("accounts.css")
    template = page_templates().get_template("accounts.html")
    page = template.render(
        base=issuer, old_clients=old_clients, min_length=min_password_length(old_clients=old_clients), style=style
    ).encode()
    content = CachedContent("accounts", lambda: page, HTML, page_headers(style))
    return [
        *(_route(each, dispatcher, old_clients=old_clients) for each in served),
        *map(content.route, PAGE_PATHS),
    ]


def _route(route: MessageRoute, dispatcher: Dispatcher, *, old_clients: bool) -> Route:
    # Only an owner's token is read from the ``authorization`` header, which may otherwise belong to another service.
    # Other credentials are in body or path.
    endpoint = MessageEndpoint(
        (GROUP, route.name),
        dispatcher=dispatcher,
        parse=_path_parser(route) if route.fields else _body_parser(route.message),
        ordering_key=route.ordering_key,
        render=_renderer(route, old_clients=old_clients),
        body_limit=None if route.fields else MAX_JSON_BODY_BYTES,
        topic=route.message.topic,
    )
    if not route.fields:
        return Route(route.path, endpoint, methods=[route.verb])
    # Fields are read from the raw path: a password may contain a slash.
    starlette_route = Route(f"/{route.name}/{{rest:path}}", endpoint, methods=[route.verb], name=route.path)
    # It may also contain a line break, which Starlette's own pattern does not match.
    starlette_route.path_regex = re.compile(starlette_route.path_regex.pattern, re.DOTALL)
    return starlette_route


def _body_parser(message: type[Command | Query]) -> Parse:
    """Parser of the body, and of the owner's token in the ``authorization`` header if the message takes one."""
    parse_body = json_body(message)
    if OWNER_TOKEN not in message.model_fields:
        return parse_body

    def parse(request: HttpRequest, body: bytes, caller: Caller) -> Parsed:
        valid, fields = parse_body(request, body, caller)
        if OWNER_TOKEN in fields:
            raise ValidationFailed(errors=[{"path": OWNER_TOKEN, "message": "Extra inputs are not permitted"}])
        scheme, _, token = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return valid, fields
        # Part of the fields: a repeat of the request with another token is another request.
        return valid.model_copy(update={OWNER_TOKEN: Sealed.of(token.strip())}), {**fields, OWNER_TOKEN: token.strip()}

    return parse


def _path_parser(route: MessageRoute) -> Parse:
    """Parser of the fields in a path. Only the raw path distinguishes an encoded slash from a separator."""
    prefix = [segment.encode() for segment in route.name.split("/")]

    def parse(request: HttpRequest, _body: bytes, _caller: Caller) -> Parsed:
        segments = request.scope["raw_path"].split(b"/")[1:]
        values = segments[len(prefix) :]
        if len(values) == len(route.fields) + 1 and not values[-1]:
            values.pop()  # One slash at the end is ignored, as on all routes.
        if segments[: len(prefix)] != prefix or len(values) != len(route.fields):
            raise NotFound
        fields: Fields = {name: _decoded(name, value) for name, value in zip(route.fields, values, strict=True)}
        return validated(route.message, fields), fields

    return parse


def _decoded(name: str, value: bytes) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise ValidationFailed(errors=[{"path": name, "message": "not UTF-8"}]) from None


def _renderer(route: MessageRoute, *, old_clients: bool) -> Render:
    """Renderer that sets the status of successful responses and extends errors.

    401 and 403 get ``auth``. For old clients every error gets it, with ``status`` and ``affectedRows``, as the API that
    Nest took over had them. Its own routes have no owner's token in the response.
    """

    def render(_request: HttpRequest, response: HttpResponse) -> HttpResponse:
        if response.status == HTTPStatus.OK:
            response.status = route.status
            if route in OLD_CLIENT_ROUTES:
                shown = {name: value for name, value in json.loads(response.body).items() if name != "token"}
                response.body = json.dumps(shown).encode()
        elif old_clients or response.status in _REJECTED:
            error = json.loads(response.body)
            rejection: dict[str, Any] = {"auth": False}
            if old_clients:
                rejection |= {"status": response.status, "affectedRows": 0}
            response.body = json.dumps({**rejection, **error}).encode()
        return response

    return render
