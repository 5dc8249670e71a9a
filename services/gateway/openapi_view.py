"""What the reference page shows of the OpenAPI document: groups, entries, fields, examples and errors."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from services.gateway.code_examples import Call, Example, formatted
from services.gateway.error_messages import MESSAGES
from services.gateway.versions import BASE_VERSION, VERSIONS

MAX_DEPTH: Final = 3
"""Nesting levels of objects whose fields are listed."""
COMMON_SHARE: Final = 0.5
"""An error of more than this share of the entries is common, and is not listed with each of them."""
ACCESS: Final = {"bearer": "user", "owner": "owner", "internal": "internal key"}
NEWEST: Final = VERSIONS[-1].date
_RPC: Final = re.compile(rf"/{BASE_VERSION}/([0-9-]{{10}})/(\w+)")
_MOMENT: Final = "2026-12-01T09:30:00.000Z"
"""A time in examples."""
_WEBHOOK: Final[dict[str, Any]] = {"tags": [], "security": [], "responses": {}, "summary": ""}
"""What the operation of a webhook may leave out."""
_NOT_TRIED: Final = {"Webhooks", "Mails"}
"""Groups without a form: they need a signature, or are pages for browsers."""


class Row(NamedTuple):
    """A field: dotted path, type, whether it is required, and description in Markdown."""

    name: str
    type: str
    required: bool
    text: str


class Error(NamedTuple):
    """An error of an entry: status, code and description in Markdown."""

    status: str
    code: str
    text: str


class Code(NamedTuple):
    """A code: its meanings, what to do, its statuses, and the IDs and names of the entries that return it."""

    code: str
    meanings: tuple[str, ...]
    message: str
    statuses: tuple[str, ...]
    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Success:
    """A response that is no error."""

    status: str
    text: str
    fields: list[Row]
    example: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation, or a webhook that Nest sends.

    Attributes:
        id: anchor.
        name: of the method, or verb and path of a route.
        summary, text: first sentence and the rest, in Markdown.
        verb, path: of the request.
        access: who may call it, in words.
        command: whether it changes something.
        deprecated: whether it is always refused.
        request: fields of path and body.
        successes: responses that are no errors.
        errors: those that are not common.
        examples: the call in several languages.
        body: example of the body as JSON; empty if there is none.
        schemes: credentials that it takes, the preferred one first.
        tried: whether the page can send it.
    """

    id: str
    name: str
    summary: str
    text: str
    verb: str
    path: str
    access: str
    command: bool
    deprecated: bool
    request: list[Row]
    successes: list[Success]
    errors: list[Error]
    examples: list[Example]
    body: str
    schemes: str
    tried: bool


class OpenApiView:
    """The page's view of one version of the document, and of the routes without a version.

    Args:
        document: the document.
        base: the URL that examples call.
        version: date of the methods.
    """

    def __init__(self, document: dict[str, Any], base: str, version: str = NEWEST) -> None:
        self.document = document
        self.version = version
        self._base = base

    @cached_property
    def groups(self) -> list[tuple[dict[str, str], list[Entry]]]:
        """The tags with their entries, in the order of the document."""
        entries: dict[str, list[Entry]] = defaultdict(list)
        for path, verb, operation in self._operations:
            entries[operation["tags"][0]].append(self._entry(path, verb, operation))
        return [(tag, entries[tag["name"]]) for tag in self.document["tags"] if entries[tag["name"]]]

    @cached_property
    def webhooks(self) -> list[Entry]:
        """The requests that Nest sends to apps."""
        return [
            self._entry("", verb.upper(), {**_WEBHOOK, "operationId": f"webhook-{name}", **operation}, name)
            for name, verbs in self.document.get("webhooks", {}).items()
            for verb, operation in verbs.items()
        ]

    @cached_property
    def common_errors(self) -> list[Error]:
        """Errors of more than half of the entries, which are listed once."""
        return sorted(self._common)

    @cached_property
    def codes(self) -> list[Code]:
        """All error codes, those of reasons and of paths that reach no method included."""
        meanings: dict[str, dict[str, None]] = defaultdict(dict)
        for schema in self.document["components"]["schemas"].values():
            code = schema.get("properties", {}).get("code", {})
            for name, text in zip(code.get("enum", []), code.get("x-enum-descriptions", []), strict=False):
                meanings[name][text] = None
        statuses: dict[str, set[str]] = defaultdict(set)
        entries: dict[str, dict[str, str]] = defaultdict(dict)
        for path, verb, operation in self._operations:
            for error in self._all_errors(operation):
                statuses[error.code].add(error.status)
                entries[error.code][_anchor(path, operation)] = _name(path, verb)
        return [
            Code(code, tuple(meanings[code]), message, tuple(sorted(statuses[code])), tuple(entries[code].items()))
            for code, message in sorted(MESSAGES.items())
        ]

    @cached_property
    def _operations(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Path, HTTP method and operation of the version's methods and of all routes."""
        return [
            (path, verb.upper(), operation)
            for path, verbs in self.document["paths"].items()
            for verb, operation in verbs.items()
            if (method := _RPC.fullmatch(path)) is None or method[1] == self.version
        ]

    @cached_property
    def _common(self) -> frozenset[Error]:
        counts: dict[Error, int] = defaultdict(int)
        for _, _, operation in self._operations:
            for error in set(self._all_errors(operation)):
                counts[error] += 1
        return frozenset(error for error, count in counts.items() if count > COMMON_SHARE * len(self._operations))

    def _entry(self, path: str, verb: str, operation: dict[str, Any], name: str = "") -> Entry:
        schemes = [scheme for each in operation["security"] for scheme in each]
        required = bool(schemes) and {} not in operation["security"]
        parameters = [self._resolved(each) for each in operation.get("parameters", [])]
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        body = None if content is None else content.get("example", self._minimal(content["schema"]))
        call = Call(operation["operationId"], verb, self._base, path, schemes[0] if required else "", body)
        return Entry(
            id=_anchor(path, operation),
            name=name or _name(path, verb),
            summary=operation["summary"],
            text=operation.get("description", ""),
            verb=verb,
            path=path,
            access=" or ".join(ACCESS[each] for each in schemes) if required else "anyone",
            command=any(each.get("name") == "idempotency-key" for each in parameters),
            deprecated=operation.get("deprecated", False),
            request=[
                Row(each["name"], f"in the {each['in']}", True, each.get("description", ""))
                for each in parameters
                # Headers are described once for all operations, but a webhook has its own.
                if each["in"] == "path" or not path
            ]
            + self._fields(operation.get("requestBody", {})),
            successes=[
                Success(status, response["description"], self._fields(response), self._example(response))
                for status, response in self._responses(operation)
                if status < "400" or not path
            ],
            errors=[error for error in self._all_errors(operation) if error not in self._common],
            examples=call.examples() if path else [],
            body="" if body is None else formatted(body),
            schemes=" ".join(schemes),
            tried=bool(path) and not _NOT_TRIED & set(operation["tags"]) and "303" not in operation["responses"],
        )

    def _responses(self, operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for status, response in operation["responses"].items():
            yield status, self._resolved(response)

    def _fields(self, body: dict[str, Any]) -> list[Row]:
        return [row for content in body.get("content", {}).values() for row in self._rows(content["schema"])]

    @staticmethod
    def _example(response: dict[str, Any]) -> str:
        contents = response.get("content", {}).values()
        return next((formatted(content["example"]) for content in contents if "example" in content), "")

    def _all_errors(self, operation: dict[str, Any]) -> list[Error]:
        errors = []
        for status, response in self._responses(operation):
            for content in response.get("content", {}).values():
                code = self._resolved(content["schema"]).get("properties", {}).get("code", {})
                texts = code.get("x-enum-descriptions", [])
                errors += [Error(status, name, text) for name, text in zip(code.get("enum", []), texts, strict=False)]
        return errors

    def _rows(self, schema: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[Row]:
        return rows(self.document, schema, prefix, depth)

    def _minimal(self, schema: dict[str, Any]) -> Any:
        """The smallest valid value, with an ellipsis for strings."""
        schema = self._resolved(schema)
        for member in schema.get("anyOf", schema.get("oneOf", []))[:1]:
            return self._minimal(member)
        if "properties" in schema:
            required = schema.get("required", [])
            return {name: self._minimal(each) for name, each in schema["properties"].items() if name in required}
        if "const" in schema or "enum" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        if schema.get("type") == "array":
            return [self._minimal(schema["items"])]
        if schema.get("format") == "date-time":
            return _MOMENT
        return {"integer": 1, "boolean": True, "object": {}}.get(schema.get("type", ""), "…")

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        return resolved(self.document, schema)


def _anchor(path: str, operation: dict[str, Any]) -> str:
    """The method's name, the same in each version, or the ID of the route."""
    method = _RPC.fullmatch(path)
    return str(operation["operationId"]) if method is None else method[2]


def _name(path: str, verb: str) -> str:
    method = _RPC.fullmatch(path)
    return f"{verb} {path}" if method is None else method[2]


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The object that a ``$ref`` points to."""
    while "$ref" in schema:
        target: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        schema = target
    return schema


def rows(document: dict[str, Any], schema: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[Row]:
    """The fields of an object and of the objects in it, with dotted names."""
    object_schema = _object(document, schema)
    for name, each in object_schema.get("properties", {}).items():
        text = each.get("description", "")
        yield Row(f"{prefix}{name}", _type(document, each), name in object_schema.get("required", []), text)
        if depth < MAX_DEPTH:
            yield from rows(document, each, f"{prefix}{name}.", depth + 1)


def _object(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Schema of the object itself, of an array's items, or of the union's member that is an object."""
    schema = resolved(document, schema)
    if schema.get("type") == "array":
        return _object(document, schema.get("items", {}))
    for member in schema.get("anyOf", schema.get("oneOf", [])):
        object_schema = _object(document, member)
        if "properties" in object_schema:
            return object_schema
    return schema


def _type(document: dict[str, Any], schema: dict[str, Any]) -> str:
    members = schema.get("anyOf", schema.get("oneOf"))
    if members is not None:
        return " or ".join(dict.fromkeys(_type(document, member) for member in members))
    schema = resolved(document, schema)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    found = schema.get("type", "any")
    if isinstance(found, list):
        return " or ".join(found)
    if found == "array" and schema.get("items"):
        return f"array of {_type(document, schema['items'])}"
    return str(schema.get("format") if "date" in schema.get("format", "") else found)
