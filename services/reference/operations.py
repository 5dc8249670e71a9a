"""What can be called? Every method and route that becomes a message, from the tables that the gateway itself reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from services.gateway import accounts, phone
from services.gateway.endpoint import Access, MessageRoute
from services.gateway.methods import PATHS, Method
from services.reference.docstrings import Promise, promise
from shared.messages import Command, Query

Family = Literal["rpc", "phone", "accounts"]
NEWEST: Final = max(method.version for method in PATHS.values())
OPERATORS: Final = "Operators"
TAGS: Final = {
    "Logging in": "By a link in a mail, without a password.",
    "Users": "Who somebody is, where they are logged in, and what they want to read.",
    "Subscriptions": "What somebody has paid for.",
    "News": "What apps show.",
    "Phone": "Logging in by a code in a text. Tokens are those of everywhere; answers are plain text.",
    "Accounts": "Users with passwords for applications of other people. No `authorization` header is looked at.",
    "Mails": "The link beside every mail, by which somebody gets no more news.",
    "Webhooks": "What others tell Nest.",
    "About Nest": "Keys, health, and this reference.",
    OPERATORS: "For your own back ends and operators, with an internal key alone. The `nest` command uses them.",
}
"""The sections of the reference."""
_LOGGING_IN: Final = frozenset({"send_magic_link", "authenticate_user", "create_trial_and_magic_link"})
_OF_SERVICE: Final = {"auth": "Users", "billing": "Subscriptions", "mailer": "Users", "news": "News"}
_BODY: Final = ("body_missing", "malformed_body", "body_too_large", "validation_failed")
_ANY: Final = ("malformed_request", "request_timeout", "headers_too_large", "unknown")
_ASKED: Final = ("invalid_idempotency_key", "too_many_requests", "unavailable", "reply_timeout")
_CALLER: Final = ("unauthorized", "access_denied")


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that can be called.

    Attributes:
        family: whose rules it follows.
        name: of the method or route.
        verb: HTTP's, in lower case.
        path: with the fields in braces that stand in it.
        tag: the section it stands in.
        who: who may call it.
        message: what a call becomes; None where none does any more.
        in_path: the fields that the path says.
        status: of an answer that is no error.
        plain: the one field of the reply that is the answer, as plain text.
        tagged: the answer has an entity tag.
        bodiless: a bearer may leave the body out.
        version: of a method.
        only_with: the setting without which it is not there.
    """

    family: Family
    name: str
    verb: str
    path: str
    tag: str
    who: Access
    message: type[Command | Query] | None
    in_path: tuple[str, ...] = ()
    status: int = 200
    plain: str | None = None
    tagged: bool = False
    bodiless: bool = False
    version: str = ""
    only_with: str = ""

    @property
    def id(self) -> str:
        """Its name among all operations."""
        if self.family != "rpc":
            return f"{self.family}_{self.name.replace('/', '_')}"
        return self.name if self.version == NEWEST else f"{self.name}_{self.version.replace('-', '_')}"

    @property
    def promise(self) -> Promise:
        """What is said of it."""
        if self.message is None:
            return Promise("Kept for old clients, and always refused.", None, "", ("deprecated",))
        return promise(self.message)

    @property
    def changes(self) -> bool:
        """Whether it changes something, so that repeating it needs a key."""
        return self.message is not None and issubclass(self.message, Command)

    @property
    def service(self) -> str:
        """Whose words refuse it."""
        return "gateway" if self.message is None else self.message.service

    @property
    def refused_by_gateway(self) -> tuple[str, ...]:
        """The codes of what may be said before its service is asked, or in its stead."""
        codes = [*_ANY]
        if self.message is None:
            return tuple(codes)
        codes += _ASKED
        if self.family == "rpc":
            codes += _CALLER
        if self.changes:
            codes.append("idempotency_key_reused")
        codes += _BODY if self.verb != "get" else ("validation_failed",)
        if self.in_path:
            codes.append("not_found")
        return tuple(dict.fromkeys(codes))


def operations() -> Iterator[Operation]:
    """All of them, the newest methods first."""
    for version in sorted({method.version for method in PATHS.values()}, reverse=True):
        yield from (_of_method(path, method) for path, method in PATHS.items() if method.version == version)
    for route in phone.ROUTES:
        yield _of_phone(route)
    yield _of_phone(phone.TEST_LOGIN, "NEST_TEST_LOGIN")
    for route in accounts.ROUTES:
        yield _of_accounts(route)
    for route in accounts.OLD_CLIENT_ROUTES:
        yield _of_accounts(route, "NEST_OLD_CLIENTS")


def _of_method(path: str, method: Method) -> Operation:
    service = "auth" if method.message is None else method.message.service
    if method.access is Access.INTERNAL:
        tag = OPERATORS
    else:
        tag = "Logging in" if method.name in _LOGGING_IN else _OF_SERVICE[service]
    return Operation(
        "rpc",
        method.name,
        "post",
        path,
        tag,
        method.access,
        method.message,
        tagged=method.entity_tag,
        bodiless=method.user_of_token,
        version=method.version,
    )


def _of_phone(call: MessageRoute, only_with: str = "") -> Operation:
    return Operation(
        "phone",
        call.name,
        "post",
        call.path,
        "Phone",
        Access.ANYONE,
        call.message,
        tuple(call.fields),
        plain=call.plain,
        only_with=only_with,
    )


def _of_accounts(call: MessageRoute, only_with: str = "") -> Operation:
    return Operation(
        "accounts",
        call.name,
        call.verb.lower(),
        call.path,
        "Accounts",
        Access.ANYONE,
        call.message,
        tuple(call.fields),
        call.status,
        only_with=only_with,
    )
