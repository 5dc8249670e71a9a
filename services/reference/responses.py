"""Responses: headers, and the errors of each status as flat schemas with an enum of the possible codes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from services.gateway.errors import (
    STATUS,
    AccessTokenExpired,
    HeadersTooLarge,
    HttpRefusal,
    InvalidAccessToken,
    InvalidTokenVersion,
    MalformedRequest,
    MalformedToken,
    RequestTimeout,
    TokenRevoked,
    UnknownTokenType,
)
from services.reference.schemas import markdown, object_schema, reference
from shared.errors import Refusal, Unknown

JSON: Final = "application/json"
ALWAYS: Final[tuple[type[Refusal], ...]] = (MalformedRequest, RequestTimeout, HeadersTooLarge, Unknown)
"""Refusals that every operation may return."""
REASONS: Final = (
    MalformedToken,
    UnknownTokenType,
    InvalidAccessToken,
    AccessTokenExpired,
    TokenRevoked,
    InvalidTokenVersion,
)
"""Refusals in the ``reasons`` of ``unauthorized``."""
PHRASES: Final = {
    **{status.value: status.phrase for status in HTTPStatus},
    413: "Content Too Large",
    422: "Unprocessable Content",
}
"""Reason phrases of RFC 9110 and RFC 6585. Before Python 3.13 ``http.HTTPStatus`` has older ones for 413 and 422."""
REQUEST_ID_PATTERN: Final = "^[A-Za-z0-9._:/+=-]{1,128}$"
HEADERS: Final = {
    "RequestId": {
        "description": "ID of the request: the one that the client sent, if valid, else a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": REQUEST_ID_PATTERN},
    },
    "Replayed": {
        "description": "`true` if this is the stored response to an earlier call with the same `idempotency-key`.",
        "schema": {"type": "string", "const": "true"},
    },
    "Location": {
        "description": "Where the browser goes next.",
        "required": True,
        "schema": {"type": "string", "format": "uri"},
    },
    "RetryAfter": {
        "description": "Seconds to wait before the next attempt.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "ETag": {
        "description": "Entity tag for `if-none-match`.",
        "required": True,
        "schema": {"type": "string", "pattern": '^(W/)?"[!-~]*"$'},
    },
    "Authenticate": {"description": "Authentication scheme: `bearer`.", "required": True, "schema": {"type": "string"}},
}
_HEADERS_BY_STATUS: Final = {
    401: {"www-authenticate": "Authenticate"},
    429: {"retry-after": "RetryAfter"},
    503: {"retry-after": "RetryAfter"},
}
_REJECTED: Final = frozenset({401, 403})
_SHARED_FROM: Final = 10
"""Minimum number of operations that share an error schema."""
_STRINGS: Final = {"type": "array", "items": {"type": "string"}}


def response(
    description: str, content: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """A response with ``x-request-id``, and with ``headers``: names in ``HEADERS`` by header name."""
    names = {"x-request-id": "RequestId", **(headers or {})}
    references = {name: {"$ref": f"#/components/headers/{component}"} for name, component in names.items()}
    found: dict[str, Any] = {"description": description, "headers": references}
    return found if content is None else {**found, "content": content}


def status_of(refusal: type[Refusal]) -> int:
    """HTTP status of a refusal."""
    return refusal.status if issubclass(refusal, HttpRefusal) else STATUS[refusal.kind]


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """The errors of an operation with the same status.

    Attributes:
        operation: prefix of the schema's name, if it is not shared.
        status: HTTP status.
        refusals: one for each code.
        stored: whether one of them is stored for the idempotency key.
        rejection: whether the body also has ``auth``, as on the account routes.
        explained: whether the body also has ``message`` and ``docs``, as everywhere but in older dated versions.
    """

    operation: str
    status: int
    refusals: tuple[type[Refusal], ...]
    stored: bool
    rejection: bool
    explained: bool

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for groups with the same schema; status and format come first."""
        codes = ((each.code, each.__doc__) for each in self.refusals)
        return (self.status, self.explained, self.rejection, *codes)

    @property
    def name(self) -> str:
        """Name of the schema, if it is shared."""
        phrase = PHRASES[self.status].removesuffix(" Error").replace(" ", "")
        return f"{'Explained' if self.explained else ''}{phrase}Error"

    @property
    def headers(self) -> dict[str, str]:
        """Names in ``HEADERS`` by header name."""
        by_status = _HEADERS_BY_STATUS.get(self.status, {})
        return {**by_status, "idempotent-replayed": "Replayed"} if self.stored else by_status

    def schema(self) -> dict[str, Any]:
        """Flat schema of the error body."""
        details = _EXPLAINED_DETAILS if self.explained else _DETAILS
        properties = {"code": _code_schema(self.refusals), **details, **(_REJECTION if self.rejection else {})}
        return object_schema(f"Error with status {self.status}.", properties, optional={"reasons"})


def _code_schema(refusals: tuple[type[Refusal], ...]) -> dict[str, Any]:
    texts = {each.code: markdown(each.__doc__) for each in refusals}
    return {
        "type": "string",
        "description": "\n".join(f"- `{code}`: {text}" for code, text in texts.items()),
        "enum": list(texts),
        "x-enum-descriptions": list(texts.values()),
    }


class Errors:
    """Error responses of all operations, and their components.

    The most frequent schema of a status is named for the status (``ConflictError``), and so is the response with it.
    Other schemas are named for their operation too (``SendMagicLinkNotFoundError``). Names of errors with ``message``
    and ``docs`` contain ``Explained``.
    """

    def __init__(self) -> None:
        self._groups: list[tuple[ErrorGroup, dict[str, Any]]] = []

    def responses(
        self,
        operation: str,
        refusals: Iterable[type[Refusal]],
        *,
        stored: frozenset[str] = frozenset(),
        rejection: bool = False,
        explained: bool = True,
    ) -> dict[str, Any]:
        """Error responses by status. They are empty until ``components`` is called.

        Args:
            operation: name of the operation in ``PascalCase``.
            refusals: of two with the same code the last one counts.
            stored: codes of refusals that are stored for the idempotency key.
            rejection: whether 401 and 403 also have ``auth``.
            explained: whether all have ``message`` and ``docs``.
        """
        by_status: dict[int, dict[str, type[Refusal]]] = defaultdict(dict)
        for each in refusals:
            by_status[status_of(each)][each.code] = each
        found: dict[str, Any] = {}
        for status, by_code in sorted(by_status.items()):
            group = ErrorGroup(
                operation,
                status,
                tuple(by_code[code] for code in sorted(by_code)),
                stored=not stored.isdisjoint(by_code),
                rejection=rejection and status in _REJECTED,
                explained=explained,
            )
            found[str(status)] = {}
            self._groups.append((group, found[str(status)]))
        return found

    def components(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Complete all responses, and return the component schemas and component responses that they refer to."""
        shared: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for key, uses in Counter(group.key for group, _ in self._groups).most_common():
            if uses >= _SHARED_FROM:
                shared.setdefault(key[:2], key)
        schemas: dict[str, Any] = {}
        responses: dict[str, Any] = {}
        for group, found in self._groups:
            is_shared = shared.get(group.key[:2]) == group.key
            name = group.name if is_shared else f"{group.operation}{group.name}"
            schema = group.schema()
            if schemas.setdefault(name, schema) != schema:
                raise ValueError(f"two different error schemas named {name}")
            whole = response(f"{PHRASES[group.status]}.", {JSON: {"schema": reference(name)}}, group.headers)
            if is_shared and not group.stored:
                responses[name] = whole
                found["$ref"] = f"#/components/responses/{name}"
            else:
                found.update(whole)
        return {**ERROR_SCHEMAS, **dict(sorted(schemas.items()))}, dict(sorted(responses.items()))


_EXPLANATION: Final[dict[str, Any]] = {
    "message": {"type": "string", "description": "What to do, in one sentence for people. The words may change."},
    "docs": {
        "type": "string",
        "format": "uri-reference",
        "description": "Path and anchor of the code's documentation, relative to the issuer.",
    },
}
ERROR_SCHEMAS: Final[dict[str, Any]] = {
    "Error": object_schema(
        "An error. The error schemas of the operations have the same properties, and list their codes.",
        {
            "code": {"type": "string", "description": "Stable code of the error.", "pattern": "^[a-z][a-z0-9_]*$"},
            "meta": {**reference("ErrorMeta"), "description": "Details."},
            "reasons": {
                "type": "array",
                "description": "Causes of the error, for `unauthorized`.",
                "items": reference("ErrorReason"),
            },
        },
        optional={"reasons"},
    ),
    "ErrorMeta": {
        "type": "object",
        "description": "Details of an error. Which of them are present depends on the code.",
        "required": ["request_id"],
        "properties": {
            "request_id": {"type": "string", "description": "ID of the request, as in `x-request-id`."},
            "retry_after": {"type": "integer", "description": "Seconds to wait before the next attempt."},
            "errors": {
                "type": "array",
                "description": "Invalid fields of the request: 20 entries at most.",
                "maxItems": 20,
                "items": reference("FieldError"),
            },
            "limit": {"type": "integer", "description": "Maximum size in bytes."},
            "supported": {**_STRINGS, "description": "HTTP methods of the path."},
            "supported_version": {"type": "string", "description": "The base version of the API."},
            "did_you_mean": {
                "type": "string",
                "description": "Path of the method or route nearest to an unknown path.",
            },
            "versions": {**_STRINGS, "description": "The dated versions of the API."},
            "grant_type": {"type": "string", "description": "Grant type in the request."},
            "country": {"type": ["string", "null"], "description": "Country of the phone number (ISO 3166-1)."},
            "waits_for": {**_STRINGS, "description": "Services that have not finished."},
            "currency": {
                "type": "string",
                "description": "Currency of the subscription, an ISO 4217 code in lower case.",
            },
            "reason": {"type": "string", "description": "Why the subscription can't be changed so."},
            "status": {"type": "string", "description": "Status of the subscription in Stripe."},
            "subscription_id": {"type": "string", "description": "ID of the other subscription."},
            "price_id": {"type": "string", "description": "ID of the refused price in Stripe."},
            "max_quantity": {
                "type": ["integer", "null"],
                "description": "Highest quantity of the price; null for a metered price.",
            },
            "positions": {
                "type": "array",
                "description": "Positions of the refused entries in the list, from 0.",
                "items": {"type": "integer"},
            },
            "guesses_left": {"type": "integer", "description": "Number of codes that may still be typed."},
            "run_id": {"type": "string", "description": "ID of the Stripe run in progress."},
            "version": {"type": "integer", "description": "Current version of the object."},
            "schemes": {**_STRINGS, "description": "Allowed URL schemes."},
            "hosts": {**_STRINGS, "description": "Allowed hosts of `https` URLs."},
        },
    },
    "ErrorReason": object_schema("Cause of an error.", {"code": _code_schema(REASONS)}),
    "ExplainedErrorReason": object_schema("Cause of an error.", {"code": _code_schema(REASONS), **_EXPLANATION}),
    "FieldError": object_schema(
        "An invalid field.",
        {
            "path": {"type": "string", "description": "Path of the field, with dots between names and indexes."},
            "message": {"type": "string", "description": "Error in words, without the value."},
        },
        additionalProperties=False,
    ),
}
"""Schemas that all errors share."""
_DETAILS: Final = {name: ERROR_SCHEMAS["Error"]["properties"][name] for name in ("meta", "reasons")}
_EXPLAINED_DETAILS: Final[dict[str, Any]] = {
    **_EXPLANATION,
    "meta": _DETAILS["meta"],
    "reasons": {**_DETAILS["reasons"], "items": reference("ExplainedErrorReason")},
}
_REJECTION: Final[dict[str, Any]] = {
    "auth": {"type": "boolean", "const": False, "description": "Always false."},
}
