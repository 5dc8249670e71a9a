"""Stripe's OpenAPI specification as JSON Schema validators: of responses, of objects by kind and of events."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator, Registry, ValidationError, ValidationErrorKind

from tests.stripe_contract.differences import LIST_PROPERTY, UNDECLARED

Json = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DOCUMENT = "urn:stripe"
"""The URI of the specification within this module."""
_ANNOTATIONS = ("description", "title", "format", "pattern")
"""Keywords that are left out: `format` is Stripe's own (`unix-time`), and so is the dialect of `pattern`."""


@dataclass(frozen=True)
class Fault:
    """A place where a value and the specification differ.

    Attributes:
        place: The path within the value, list positions as `[]`, for example `lines.data.[].price`.
        message: How they differ, without the value's own texts.
    """

    place: str
    message: str


class Specification:
    """The specification of one API version.

    Responses are validated more strictly than the specification demands: an object with declared properties may have no
    others. So a misspelled or outdated property is found.

    Args:
        folder: The folder of `spec3.json` and `fixtures3.json`, as in the Go module of stripe-mock.
    """

    def __init__(self, folder: Path) -> None:
        self._document: Json = json.loads((folder / "spec3.json").read_text())
        self.version: str = self._document["info"]["version"]
        self._schemas: Json = {}
        for name, schema in self._document["components"]["schemas"].items():
            undeclared = {extra: {} for owner, extra in UNDECLARED if owner == name}
            self._schemas[name] = _as_json_schema(
                {**schema, "properties": {**schema.get("properties", {}), **undeclared}}
            )
        self._validators: dict[str, Draft202012Validator] = {}
        # One copy for all validators: a copy of the specification in each takes gigabytes, and minutes to allocate.
        document = {"$schema": _DIALECT, "components": {"schemas": self._schemas}}
        self._registry = Registry([(_DOCUMENT, document)])
        self._routes: dict[tuple[str, ...], str] = {tuple(path.split("/")): path for path in self._document["paths"]}
        self.fixtures: dict[str, Json] = json.loads((folder / "fixtures3.json").read_text())["resources"]

    def route(self, method: str, path: str) -> str | None:
        """Return the templated path that a request belongs to, such as `/v1/customers/{customer}`."""
        parts = path.split("/")
        found = [
            (sum(part[:1] == "{" for part in route), name)
            for route, name in self._routes.items()
            if len(route) == len(parts)
            and all(expected[:1] == "{" or expected == part for expected, part in zip(route, parts, strict=True))
            and method.lower() in self._document["paths"][name]
        ]
        return min(found)[1] if found else None

    def response_faults(self, method: str, route: str, status: int, body: Any) -> list[Fault]:
        """Validate a response of a route."""
        responses = self._document["paths"][route][method.lower()]["responses"]
        response = responses.get(str(status)) or responses["default"]
        return self._faults(response["content"]["application/json"]["schema"], body)

    def object_faults(self, entry: Json) -> list[Fault]:
        """Validate an object by its kind; a tombstone (`deleted: true`) by the schema of deleted objects."""
        name = self._schema_of_kind.get((entry["object"], bool(entry.get("deleted"))))
        if name is None:
            return [Fault("object", f"no schema for the kind {entry['object']!r}")]
        return self._faults({"$ref": f"#/components/schemas/{name}"}, entry)

    def missing_members(self, entry: Json) -> Iterator[str]:
        """Yield the members that Stripe's example of this kind has and this object lacks, with those of its parts."""
        example = self.fixtures.get(entry["object"])
        if example is not None and not entry.get("deleted"):
            yield from _missing(example, entry, "")

    def declares(self, schema: str, name: str) -> bool:
        """Return whether a schema of the specification has a property."""
        return name in self._document["components"]["schemas"][schema]["properties"]

    @cached_property
    def event_types(self) -> frozenset[str]:
        """The types of events that a webhook endpoint can receive."""
        operation = self._document["paths"]["/v1/webhook_endpoints"]["post"]
        form = operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
        return frozenset(form["properties"]["enabled_events"]["items"]["enum"])

    def statuses(self, kind: str) -> frozenset[str]:
        """The values of `status` of a kind of object."""
        schema = self._document["components"]["schemas"][self._schema_of_kind[kind, False]]
        return frozenset(schema["properties"]["status"]["enum"])

    @cached_property
    def _schema_of_kind(self) -> dict[tuple[str, bool], str]:
        found: dict[tuple[str, bool], str] = {}
        schemas = self._document["components"]["schemas"]
        # The schemas of resources first: others describe a kind in part.
        for name, schema in sorted(schemas.items(), key=lambda each: "x-resourceId" not in each[1]):
            properties = schema.get("properties", {})
            kinds = properties.get("object", {}).get("enum", ())
            if len(kinds) == 1:
                found.setdefault((kinds[0], "deleted" in properties), name)
        return found

    def _faults(self, schema: Json, value: Any) -> list[Fault]:
        key = json.dumps(schema).replace('"#/', f'"{_DOCUMENT}#/')
        validator = self._validators.get(key)
        if validator is None:
            root = _as_json_schema(json.loads(key))
            validator = self._validators[key] = Draft202012Validator(root, registry=self._registry)
        if validator.is_valid(value):
            return []
        return sorted({fault for error in validator.iter_errors(value) for fault in _leaves(error, ())}, key=str)


def _as_json_schema(schema: Any) -> Any:
    """Return a schema of OpenAPI 3.0 as one of JSON Schema 2020-12, closed to undeclared properties."""
    if not isinstance(schema, dict):
        return schema
    result: Json = {}
    for name, value in schema.items():
        if name in ("properties", "$defs"):
            result[name] = {key: _as_json_schema(each) for key, each in value.items()}
        elif name == "items" or (name == "additionalProperties" and isinstance(value, dict)):
            result[name] = _as_json_schema(value)
        elif name in ("anyOf", "oneOf", "allOf"):
            result[name] = [_as_json_schema(each) for each in value]
        elif name not in _ANNOTATIONS and name != "nullable" and not name.startswith("x-"):
            result[name] = value
    if result.get("properties", {}).get("object", {}).get("enum") == ["list"]:
        result["properties"][LIST_PROPERTY] = {"type": "integer"}
    if result.get("properties") and "additionalProperties" not in result:
        result["additionalProperties"] = False
    if schema.get("x-stripeBypassValidation"):
        # Stripe adds values to these enumerations without a new version.
        result.pop("enum", None)
    return {"anyOf": [result, {"type": "null"}]} if schema.get("nullable") else result


def _leaves(error: ValidationError, prefix: tuple[str, ...]) -> Iterator[Fault]:
    """Yield the causes of an error: for an alternative those of its nearest branch."""
    place = prefix + tuple("[]" if isinstance(part, int) else str(part) for part in error.instance_path)
    if isinstance(error.kind, ValidationErrorKind.AnyOf):
        branches = [branch for branch in error.kind.context if not _is_of_another_type(error, branch)]
        if branches:
            nearest = min(branches, key=lambda branch: (_has_another_kind(branch), len(branch)))
            for cause in nearest:
                yield from _leaves(cause, prefix)
            return
    yield Fault(".".join(place), _message(error))


def _is_of_another_type(error: ValidationError, branch: list[ValidationError]) -> bool:
    first = branch[0]
    return isinstance(first.kind, ValidationErrorKind.Type) and first.instance_path == error.instance_path


def _has_another_kind(branch: list[ValidationError]) -> bool:
    return any(cause.instance_path[-1:] == ["object"] for cause in branch)


def _message(error: ValidationError) -> str:
    kind = error.kind
    if isinstance(kind, ValidationErrorKind.Required):
        return f"lacks {kind.property}"
    if isinstance(kind, ValidationErrorKind.AdditionalProperties):
        return f"has unknown {', '.join(sorted(kind.unexpected))}"
    if isinstance(kind, ValidationErrorKind.Type):
        return f"{type(error.instance).__name__} instead of {kind.types}"
    if isinstance(kind, ValidationErrorKind.Enum):
        return f"{error.instance!r} is no value of the enumeration"
    return f"{kind.name}: {error.message[-300:]}"


def _missing(example: Any, value: Any, place: str) -> Iterator[str]:
    if isinstance(example, dict) and isinstance(value, dict):
        if "object" in example and example["object"] != value.get("object"):
            return
        for name, part in example.items():
            if name not in value:
                yield f"{place}{name}"
            else:
                yield from _missing(part, value[name], f"{place}{name}.")
    elif isinstance(example, list) and isinstance(value, list) and example:
        for entry in value:
            yield from _missing(example[0], entry, f"{place}[].")
