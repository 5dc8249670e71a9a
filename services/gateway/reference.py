"""API reference: ``GET /openapi.json`` and ``GET /asyncapi.json`` for programs, and an HTML page at ``GET /reference``.

``make reference`` generates both documents. The page is rendered from it at the first request.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Final, NamedTuple

from markupsafe import Markup, escape
from starlette.routing import Route

from services.gateway.cached_content import HTML, CachedContent, page_headers, page_templates, template_text
from services.gateway.error_messages import MESSAGES
from services.gateway.versions import DOCS_PATH, error_anchor

MAX_DEPTH: Final = 3
"""Nesting levels of objects whose fields are listed."""
AUTHORIZATIONS: Final = {
    "bearer": "authorization: bearer $TOKEN",
    "internal": "authorization: internal $KEY",
}
ACCESS: Final = {"bearer": "the user's access token", "internal": "an internal key"}
_CODE: Final = re.compile(r"`([^`]+)`")
Error = tuple[str, str, str]
"""Status, code and description."""


def routes(issuer: str) -> list[Route]:
    """``GET /openapi.json`` and ``GET /reference``.

    Args:
        issuer: the URL under which clients reach this gateway, for the page's examples.
    """
    style = template_text("accounts.css", "reference.css")

    @cache
    def document(name: str = "openapi.json") -> bytes:
        return (files("services.gateway") / name).read_bytes()

    @cache
    def page() -> bytes:
        templates = page_templates()
        templates.filters |= {"markdown": markdown, "error_anchor": error_anchor}
        reference = Reference(json.loads(document()), issuer)
        return templates.get_template("reference.html").render(reference=reference, style=style).encode()

    return [
        CachedContent("openapi", document).route("/openapi.json"),
        CachedContent("asyncapi", lambda: document("asyncapi.json")).route("/asyncapi.json"),
        CachedContent("reference", page, HTML, page_headers(style)).route(DOCS_PATH),
    ]


def markdown(text: str) -> Markup:
    """Render the subset of Markdown that descriptions use as HTML: paragraphs, and code in backticks."""
    paragraphs = [_CODE.sub(r"<code>\1</code>", str(escape(each))) for each in text.split("\n\n") if each]
    return Markup("\n").join(Markup(f"<p>{each}</p>") for each in paragraphs)  # noqa: S704 -- escaped above


class Row(NamedTuple):
    """A field: dotted path, type, and description in Markdown."""

    name: str
    type: str
    required: bool
    text: str


class Reference:
    """An OpenAPI document, with what the page derives from it.

    Args:
        document: the document.
        base: the URL that examples call.
    """

    def __init__(self, document: dict[str, Any], base: str) -> None:
        self.document = document
        self._base = base

    def operations(self, tag: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Path, HTTP method and operation of all operations, or of those with a tag."""
        for path, verbs in self.document["paths"].items():
            for verb, operation in verbs.items():
                if tag in (None, *operation["tags"]):
                    yield path, verb.upper(), operation

    def access(self, operation: dict[str, Any]) -> str:
        """Who may call an operation."""
        security = operation["security"]
        if not security or {} in security:
            return "anyone"
        return " or ".join(ACCESS[name] for each in security for name in each)

    def request(self, operation: dict[str, Any]) -> list[Row]:
        """Fields of path and body."""
        parameters = [self._resolved(each) for each in operation["parameters"]]
        path_rows = [
            Row(each["name"], "in the path", True, each.get("description", ""))
            for each in parameters
            if each["in"] == "path"
        ]
        return path_rows + self.fields(operation.get("requestBody", {}))

    def successes(self, operation: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """Status and response of those that are not errors."""
        responses = operation["responses"].items()
        return [(status, self._resolved(response)) for status, response in responses if status < "400"]

    def fields(self, body: dict[str, Any]) -> list[Row]:
        """Fields of a response or request body."""
        return [row for content in body.get("content", {}).values() for row in self._rows(content["schema"])]

    def example(self, response: dict[str, Any]) -> str:
        """Example of a response; empty if it has none."""
        contents = response.get("content", {}).values()
        return next((_formatted(content["example"]) for content in contents if "example" in content), "")

    @cached_property
    def common_errors(self) -> list[Error]:
        """Errors of more than half of the operations, which are listed once."""
        all_errors = [self._errors(operation) for _, _, operation in self.operations()]
        counts = Counter(error for errors in all_errors for error in errors)
        return sorted(error for error, count in counts.items() if count > len(all_errors) / 2)

    @cached_property
    def codes(self) -> list[tuple[str, str, str]]:
        """All error codes with their meanings, and with what to do."""
        meanings: dict[str, dict[str, None]] = {}
        for schema in self.document["components"]["schemas"].values():
            code = schema.get("properties", {}).get("code", {})
            for name, text in zip(code.get("enum", []), code.get("x-enum-descriptions", []), strict=False):
                meanings.setdefault(name, {})[text] = None
        return [(code, "\n\n".join(meanings.get(code, {})), MESSAGES[code]) for code in sorted(MESSAGES)]

    def errors(self, operation: dict[str, Any]) -> list[Error]:
        """Errors of an operation that are not among the common ones."""
        return [error for error in self._errors(operation) if error not in self.common_errors]

    def _errors(self, operation: dict[str, Any]) -> list[Error]:
        errors = []
        for status, response in operation["responses"].items():
            for content in self._resolved(response).get("content", {}).values():
                code = self._resolved(content["schema"]).get("properties", {}).get("code", {})
                texts = code.get("x-enum-descriptions", [])
                errors += [(status, name, text) for name, text in zip(code.get("enum", []), texts, strict=False)]
        return errors

    def curl(self, path: str, verb: str, operation: dict[str, Any]) -> str:
        """Shell command that calls an operation."""
        option = "" if verb in {"GET", "POST"} else f"-X {verb} "
        words = [f"curl -s {option}{self._base}{path}"]
        schemes = [name for each in operation["security"] for name in each]
        if schemes and {} not in operation["security"]:
            words.append(f'-H "{AUTHORIZATIONS[schemes[0]]}"')
        bodies = operation.get("requestBody", {}).get("content", {})
        for content in list(bodies.values())[:1]:
            example = content.get("example", self._minimal(content["schema"]))
            words.append(f"-d '{_formatted(example)}'")
        return " \\\n  ".join(words)

    def _rows(self, schema: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[Row]:
        object_schema = self._object(schema)
        for name, property_schema in object_schema.get("properties", {}).items():
            text = property_schema.get("description", "")
            if "default" in property_schema and property_schema["default"] not in ([], {}):
                default = json.dumps(property_schema["default"], ensure_ascii=False)
                text = f"{text} Default: `{default}`.".strip()
            required = name in object_schema.get("required", [])
            yield Row(f"{prefix}{name}", self._type(property_schema), required, text)
            if depth < MAX_DEPTH:
                yield from self._rows(property_schema, f"{prefix}{name}.", depth + 1)

    def _object(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Schema of the object itself, of an array's items, or of the union's member that is an object."""
        schema = self._resolved(schema)
        if schema.get("type") == "array":
            return self._object(schema.get("items", {}))
        for member in schema.get("anyOf", schema.get("oneOf", [])):
            object_schema = self._object(member)
            if "properties" in object_schema:
                return object_schema
        return schema

    def _type(self, schema: dict[str, Any]) -> str:
        members = schema.get("anyOf", schema.get("oneOf"))
        if members is not None:
            return " or ".join(dict.fromkeys(self._type(member) for member in members))
        schema = self._resolved(schema)
        if "const" in schema:
            return json.dumps(schema["const"])
        if "enum" in schema:
            return " or ".join(map(str, schema["enum"]))
        if schema.get("type") == "array" and schema.get("items"):
            return f"array of {self._type(schema['items'])}"
        return str(schema.get("format") if "date" in schema.get("format", "") else schema.get("type", "any"))

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
        return {"integer": 1, "boolean": True, "object": {}}.get(schema.get("type", ""), "…")

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema that a ``$ref`` points to."""
        while "$ref" in schema:
            target: Any = self.document
            for name in schema["$ref"].removeprefix("#/").split("/"):
                target = target[name]
            schema = target
        return schema


def _formatted(example: Any) -> str:
    return json.dumps(example, indent=2, ensure_ascii=False) if isinstance(example, dict | list) else str(example)
