"""How is the reference laid out for people? Sections of operations, with fields, answers and errors in rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from markupsafe import Markup, escape

DEEPEST: Final = 3
"""How many objects within one another get rows."""
TYPES: Final = {"string": "text", "object": "an object", "array": "a list", "null": "null", "boolean": "true or false"}
FORMATS: Final = {"date-time": "a time", "date": "a date"}
AUTHORIZATIONS: Final = {
    "bearer": "authorization: bearer $TOKEN",
    "internal": "authorization: internal $KEY",
}
_CODE: Final = re.compile(r"`([^`]+)`")


def marked(text: str) -> Markup:
    """A little of Markdown as HTML: paragraphs, and code between backticks."""
    paragraphs = [_CODE.sub(r"<code>\1</code>", str(escape(each))) for each in text.split("\n\n") if each]
    return Markup("\n").join(Markup(f"<p>{each}</p>") for each in paragraphs)  # noqa: S704 -- escaped above


@dataclass(frozen=True, slots=True)
class Row:
    """A field: of which object in the body, its type in words, and what is said of it."""

    name: str
    kind: str
    required: bool
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no error."""

    status: str
    text: str
    rows: list[Row]
    example: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation.

    Attributes:
        id: of its place on the page.
        title: verb and path.
        summary: one sentence.
        text: what else is to be said, in Markdown.
        who: who may call it, in words.
        takes: the fields of its path and its body.
        answers: those that are no errors.
        errors: status, code and meaning of those that few others have.
        curl: a command that calls it.
    """

    id: str
    title: str
    summary: str
    text: str
    who: str
    takes: list[Row]
    answers: list[Answer]
    errors: list[tuple[str, str, str]]
    curl: str


@dataclass(frozen=True, slots=True)
class Section:
    """Operations that belong together."""

    name: str
    text: str
    entries: list[Entry] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Of its place on the page."""
        return self.name.lower().replace(" ", "-")


class Layout:
    """The document in rows.

    Args:
        document: OpenAPI.
        base: the URL that examples call.
    """

    def __init__(self, document: dict[str, Any], base: str) -> None:
        self._document = document
        self.base = base
        self.about: str = document["info"]["description"]

    @cached_property
    def sections(self) -> list[Section]:
        """In the order of the document's tags."""
        found = {tag["name"]: Section(tag["name"], tag["description"]) for tag in self._document["tags"]}
        for path, verb, operation in self._operations():
            found[operation["tags"][0]].entries.append(self._entry(path, verb, operation))
        return list(found.values())

    @cached_property
    def usual_errors(self) -> list[tuple[str, str, str]]:
        """Those that more than half of the operations have: said once."""
        all_errors = [self._errors(operation) for _, _, operation in self._operations()]
        counted = Counter(error for errors in all_errors for error in errors)
        return sorted(error for error, count in counted.items() if count > len(all_errors) / 2)

    def _operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, verbs in self._document["paths"].items():
            for verb, operation in verbs.items():
                yield path, verb.upper(), operation

    def _entry(self, path: str, verb: str, operation: dict[str, Any]) -> Entry:
        bodies = operation.get("requestBody", {}).get("content", {})
        parameters = [self._found(each) for each in operation["parameters"]]
        said = [
            Row(each["name"], "in the path", True, each.get("description", ""))
            for each in parameters
            if each["in"] == "path"
        ]
        responses = {status: self._found(each) for status, each in operation["responses"].items()}
        return Entry(
            id=operation["operationId"],
            title=f"{verb} {path}",
            summary=operation["summary"],
            text=operation.get("description", ""),
            who=_who(operation),
            takes=said + [row for each in bodies.values() for row in self._rows(each["schema"])],
            answers=[self._answer(status, each) for status, each in responses.items() if status < "400"],
            errors=[error for error in self._errors(operation) if error not in self.usual_errors],
            curl=self._curl(path, verb, operation),
        )

    def _answer(self, status: str, response: dict[str, Any]) -> Answer:
        contents = list(response.get("content", {}).values())
        examples = [each["example"] for each in contents if "example" in each]
        return Answer(
            status,
            response["description"],
            [row for each in contents for row in self._rows(each["schema"])],
            _written(examples[0]) if examples else "",
        )

    def _errors(self, operation: dict[str, Any]) -> list[tuple[str, str, str]]:
        found = []
        for status, response in operation["responses"].items():
            for content in self._found(response).get("content", {}).values():
                for part in content["schema"].get("allOf", []):
                    codes = part.get("properties", {}).get("code", {}).get("oneOf", [])
                    found += [(status, each["const"], each["description"]) for each in codes]
        return found

    def _curl(self, path: str, verb: str, operation: dict[str, Any]) -> str:
        words = [f"curl -s {self.base}{path}" if verb in {"GET", "POST"} else f"curl -s -X {verb} {self.base}{path}"]
        shown = [name for each in operation["security"] for name in each]
        if shown and {} not in operation["security"]:
            words.append(f'-H "{AUTHORIZATIONS[shown[0]]}"')
        bodies = operation.get("requestBody", {}).get("content", {})
        for content in list(bodies.values())[:1]:
            example = content.get("example", self._skeleton(content["schema"]))
            words.append(f"-d '{_written(example)}'")
        return " \\\n  ".join(words)

    def _rows(self, schema: dict[str, Any], at: str = "", depth: int = 0) -> Iterator[Row]:
        found = self._object(schema)
        for name, of_field in found.get("properties", {}).items():
            text = of_field.get("description", "")
            if "default" in of_field and of_field["default"] not in ([], {}):
                text = f"{text} By default `{json.dumps(of_field['default'], ensure_ascii=False)}`.".strip()
            yield Row(f"{at}{name}", self._kind(of_field), name in found.get("required", []), text)
            if depth < DEEPEST:
                yield from self._rows(of_field, f"{at}{name}.", depth + 1)

    def _object(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The object that a value is, or that the members of a list are, or that it is if it is not null."""
        schema = self._found(schema)
        if schema.get("type") == "array":
            return self._object(schema.get("items", {}))
        for choice in schema.get("anyOf", schema.get("oneOf", [])):
            found = self._object(choice)
            if "properties" in found:
                return found
        return schema

    def _kind(self, schema: dict[str, Any]) -> str:
        choices = schema.get("anyOf", schema.get("oneOf"))
        if choices is not None:
            return " or ".join(dict.fromkeys(self._kind(choice) for choice in choices))
        schema = self._found(schema)
        if "const" in schema:
            return json.dumps(schema["const"])
        if "enum" in schema:
            return " or ".join(map(str, schema["enum"]))
        if schema.get("type") == "array" and schema.get("items"):
            return f"a list of {self._kind(schema['items'])}"
        kind = str(schema.get("type", "anything"))
        return FORMATS.get(schema.get("format", ""), TYPES.get(kind, kind))

    def _skeleton(self, schema: dict[str, Any]) -> Any:
        """The least that is taken, with an ellipsis where a text belongs."""
        schema = self._found(schema)
        for choice in schema.get("anyOf", schema.get("oneOf", []))[:1]:
            return self._skeleton(choice)
        if "properties" in schema:
            required = schema.get("required", [])
            return {name: self._skeleton(each) for name, each in schema["properties"].items() if name in required}
        if "const" in schema or "enum" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        if schema.get("type") == "array":
            return [self._skeleton(schema["items"])]
        return {"integer": 1, "boolean": True, "object": {}}.get(schema.get("type", ""), "…")

    def _found(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What a reference refers to."""
        while "$ref" in schema:
            found: Any = self._document
            for name in schema["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            schema = found
        return schema


def _who(operation: dict[str, Any]) -> str:
    security = operation["security"]
    if not security or {} in security:
        return "anyone"
    return " or ".join({"bearer": "a user", "internal": "an internal key"}[name] for each in security for name in each)


def _written(example: Any) -> str:
    return json.dumps(example, indent=2, ensure_ascii=False) if isinstance(example, dict | list) else str(example)
