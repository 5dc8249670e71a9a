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
        rejection: whether the body also has ``auth`` and ``message``, as on the account routes.
    """

    operation: str
    status: int
    refusals: tuple[type[Refusal], ...]
    stored: bool
    rejection: bool

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for groups with the same schema; the status comes first."""
        return (self.status, self.rejection, *((each.code, each.__doc__) for each in self.refusals))

    @property
    def headers(self) -> dict[str, str]:
        """Names in ``HEADERS`` by header name."""
        by_status = _HEADERS_BY_STATUS.get(self.status, {})
        return {**by_status, "idempotent-replayed": "Replayed"} if self.stored else by_status

    def schema(self) -> dict[str, Any]:
        """Flat schema of the error body."""
        properties = {"code": _code_schema(self.refusals), **_DETAILS, **(_REJECTION if self.rejection else {})}
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
    Other schemas are named for their operation too (``SendMagicLinkNotFoundError``).
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
    ) -> dict[str, Any]:
        """Error responses by status. They are empty until ``components`` is called.

        Args:
            operation: name of the operation in ``PascalCase``.
            refusals: of two with the same code the last one counts.
            stored: codes of refusals that are stored for the idempotency key.
            rejection: whether 401 and 403 also have ``auth`` and ``message``.
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
            )
            found[str(status)] = {}
            self._groups.append((group, found[str(status)]))
        return found

    def components(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Complete all responses, and return the component schemas and component responses that they refer to."""
        shared: dict[int, tuple[Any, ...]] = {}
        for key, uses in Counter(group.key for group, _ in self._groups).most_common():
            if uses >= _SHARED_FROM:
                shared.setdefault(key[0], key)
        schemas: dict[str, Any] = {}
        responses: dict[str, Any] = {}
        for group, found in self._groups:
            is_shared = shared.get(group.status) == group.key
            status = f"{PHRASES[group.status].removesuffix(' Error').replace(' ', '')}Error"
            name = status if is_shared else f"{group.operation}{status}"
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
            "versions": {**_STRINGS, "description": "The dated versions of the API."},
            "grant_type": {"type": "string", "description": "Grant type in the request."},
            "country": {"type": ["string", "null"], "description": "Country of the phone number (ISO 3166-1)."},
            "waits_for": {**_STRINGS, "description": "Services that have not finished."},
            "run_id": {"type": "string", "description": "ID of the Stripe run in progress."},
            "version": {"type": "integer", "description": "Current version of the object."},
            "schemes": {**_STRINGS, "description": "Allowed URL schemes."},
            "hosts": {**_STRINGS, "description": "Allowed hosts of `https` URLs."},
        },
    },
    "ErrorReason": object_schema("Cause of an error.", {"code": _code_schema(REASONS)}),
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
_REJECTION: Final[dict[str, Any]] = {
    "auth": {"type": "boolean", "const": False, "description": "Always false."},
    "message": {"type": "string", "description": "The error in words."},
}
