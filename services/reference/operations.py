"""Operations of the HTTP API that send a message, from the gateway's tables of methods and routes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel

from services.gateway import accounts, phone
from services.gateway.endpoint import Access, MessageRoute
from services.gateway.errors import (
    AccessDenied,
    BodyMissing,
    BodyTooLarge,
    Deprecated,
    InvalidFields,
    InvalidIdempotencyKey,
    MalformedBody,
    ReplyTimeout,
    TooManyRequests,
    Unauthorized,
    ValidationFailed,
)
from services.gateway.methods import PATHS, Method
from services.reference.responses import ALWAYS
from services.reference.schemas import markdown, split_summary
from shared.errors import IdempotencyKeyReused, NotFound, QueryTimeout, Refusal, Unavailable
from shared.messages import Command, Query
from shared.messages.auth.errors import Throttled

Family = Literal["rpc", "phone", "accounts"]
NEWEST: Final = max(method.version for method in PATHS.values())
OPERATORS: Final = "Operators"
TAGS: Final = {
    "Login": "Login by email: a magic link, then access tokens and refresh tokens.",
    "Users": "Users, their sessions, and their marketing consent.",
    "Subscriptions": "Subscriptions of users.",
    "News": "News items that apps show.",
    "Phone login": "Login by phone: a code in a text, then an access token. Some responses are plain text.",
    "Accounts": "Users with passwords, for other people's applications. Credentials are in the body, except an owner's"
    " token.",
    "Mails": "The links in mails to pages of Nest.",
    "Webhooks": "Webhook endpoints for Stripe and for mail servers, and the events that Nest posts to apps.",
    "Service": "Public keys, health, and this reference.",
    OPERATORS: "For operators and back ends, with an internal key. The `nest` command uses these methods.",
}
"""Descriptions of the tags, in the order of the reference."""
_DEPRECATED: Final = "Do nothing. The method was removed; its path remains and always returns `deprecated`."
_LOGIN: Final = frozenset({"send_magic_link", "authenticate_user", "create_trial_and_magic_link"})
_TAG_BY_SERVICE: Final = {"auth": "Users", "billing": "Subscriptions", "mailer": "Users", "news": "News"}


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the HTTP API.

    Attributes:
        family: group of operations with the same conventions.
        name: of the method or route.
        verb: HTTP method in lower case.
        path: with path parameters in braces.
        tag: section of the reference.
        access: who may call it.
        message: class of the command or query; None for a deprecated method.
        path_fields: fields of the message that are path parameters.
        status: of a successful response with a body.
        text_field: the field of the reply that is the response as plain text; None if the response is JSON.
        entity_tag: whether responses have an ``etag``.
        credential_in_body: whether a bearer token is ignored.
        body_optional: whether the body may be omitted with an access token.
        version: dated version of an RPC method.
        setting: environment variable that enables it; empty if it always exists.
    """

    family: Family
    name: str
    verb: str
    path: str
    tag: str
    access: Access
    message: type[Command | Query] | None
    path_fields: tuple[str, ...] = ()
    status: int = 200
    text_field: str | None = None
    entity_tag: bool = False
    credential_in_body: bool = False
    body_optional: bool = False
    version: str = ""
    setting: str = ""

    @property
    def id(self) -> str:
        """Unique ID. An RPC method of an older version has the version in it."""
        if self.family != "rpc":
            return f"{self.family}_{self.name.replace('/', '_')}"
        return self.name if self.version == NEWEST else f"{self.name}_{self.version.replace('-', '_')}"

    @property
    def schema_name(self) -> str:
        """Prefix of its schemas' names: the method or route in ``PascalCase``.

        Versions of a method share it as long as their errors with the same status are the same.
        """
        family = "" if self.family == "rpc" else self.family.capitalize()
        return family + "".join(part.capitalize() for part in re.split(r"[_/]", self.name))

    @property
    def summary(self) -> str:
        """First sentence of the message's docstring, without the period."""
        return split_summary(self._text)[0]

    @property
    def description(self) -> str:
        """The rest of the message's docstring, in Markdown."""
        return split_summary(self._text)[1]

    @property
    def _text(self) -> str:
        return _DEPRECATED if self.message is None else markdown(self.message.__doc__)

    @property
    def reply(self) -> type[BaseModel] | None:
        """Model of the response body; None if it has none."""
        return None if self.message is None else self.message.reply

    @property
    def is_command(self) -> bool:
        """Whether it changes something and therefore supports idempotency keys."""
        return self.message is not None and issubclass(self.message, Command)

    @property
    def refusals(self) -> tuple[type[Refusal], ...]:
        """Refusals of the gateway and of the message. Of two with the same code the last one has the better text."""
        if self.message is None:
            return (*ALWAYS, Deprecated)
        found = [*ALWAYS, InvalidIdempotencyKey, TooManyRequests, Unavailable, ReplyTimeout]
        if self.family == "rpc":
            found += [AccessDenied] if self.credential_in_body else [Unauthorized, AccessDenied]
        if self.is_command:
            found.append(IdempotencyKeyReused)
        else:
            found.append(QueryTimeout)
        if self.verb != "get":
            found += [BodyMissing, MalformedBody, BodyTooLarge]
        if self.path_fields:
            found.append(NotFound)
        return (*found, *self.message.refuses, InvalidFields if self.family == "phone" else ValidationFailed)

    @property
    def stored_codes(self) -> frozenset[str]:
        """Codes of refusals that are stored for the idempotency key."""
        if self.message is None or not self.is_command:
            return frozenset()
        return frozenset(each.code for each in self.message.refuses if each is not Throttled)


def operations() -> Iterator[Operation]:
    """All operations, RPC methods of the newest version first."""
    for version in sorted({method.version for method in PATHS.values()}, reverse=True):
        yield from (_rpc(path, method) for path, method in PATHS.items() if method.version == version)
    yield from (_route("phone", "Phone login", route) for route in phone.ROUTES)
    yield _route("phone", "Phone login", phone.TEST_LOGIN, "NEST_TEST_LOGIN")
    yield from (_route("accounts", "Accounts", route) for route in accounts.ROUTES)
    yield from (_route("accounts", "Accounts", route, "NEST_OLD_CLIENTS") for route in accounts.OLD_CLIENT_ROUTES)


def _rpc(path: str, method: Method) -> Operation:
    service = "auth" if method.message is None else method.message.service
    if method.access is Access.INTERNAL:
        tag = OPERATORS
    else:
        tag = "Login" if method.name in _LOGIN else _TAG_BY_SERVICE[service]
    return Operation(
        "rpc",
        method.name,
        "post",
        path,
        tag,
        method.access,
        method.message,
        entity_tag=method.entity_tag,
        credential_in_body=method.credential_in_body,
        body_optional=method.user_of_token,
        version=method.version,
    )


def _route(family: Family, tag: str, route: MessageRoute, setting: str = "") -> Operation:
    return Operation(
        family,
        route.name,
        route.verb.lower(),
        route.path,
        tag,
        Access.ANYONE,
        route.message,
        path_fields=tuple(route.fields),
        status=route.status,
        text_field=route.plain,
        setting=setting,
    )
