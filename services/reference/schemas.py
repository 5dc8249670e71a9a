"""JSON Schema 2020-12 of request and response bodies, from the pydantic models."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from shared.messages import Message, iso_milliseconds

REF_TEMPLATE: Final = "#/components/schemas/{model}"
MOMENT_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"
NOT_IN_BODY: Final = frozenset({"key", "locales", "owner_token"})
"""Message fields that the gateway sets itself: from the methods' table, and from the headers ``accept-language`` and
``authorization``."""


def markdown(docstring: str | None) -> str:
    """Convert a docstring to Markdown: one line per paragraph, single backticks."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(docstring or ""))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).replace("``", "`")


def split_summary(text: str) -> tuple[str, str]:
    """Split Markdown into its first sentence, without the period, and the rest."""
    summary, *rest = re.split(r"\.(?:\s+|$)", text, maxsplit=1)
    return summary, "".join(rest)


def reference(model: str) -> dict[str, str]:
    """Reference to a component schema."""
    return {"$ref": REF_TEMPLATE.format(model=model)}


def object_schema(
    description: str, properties: dict[str, Any], *, optional: Collection[str] = (), **keywords: Any
) -> dict[str, Any]:
    """Schema of an object. All properties are required except those in ``optional``."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "description": description, "required": required, "properties": properties, **keywords}


class BodySchemas(GenerateJsonSchema):
    """Schemas of request bodies, which refuse unknown fields, and of response bodies, which have all fields.

    Attributes:
        omitted: fields of messages that are not in the body.
        closed: whether unknown fields are refused.
    """

    omitted = NOT_IN_BODY
    closed = True

    def field_title_should_be_set(self, schema: Any) -> bool:
        """No titles: they would only repeat the field's name."""
        del schema
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:  # noqa: FBT001 -- signature of pydantic
        """In responses all fields are required, nullable ones included, except those that are left out if null."""
        if self.mode == "serialization" and field.get("serialization_exclude_if") is None:
            return True
        return super().field_is_required(field, total)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Defaults of requests, except null, which an omitted field means anyway.

        ``model_schema`` moves them into the descriptions: some generators of clients require a field with a default.
        """
        json_schema = super().default_schema(schema)
        if json_schema.get("default", ...) is None or self.mode == "serialization":
            json_schema.pop("default", None)
        return json_schema

    def ser_schema(self, schema: Any) -> JsonSchemaValue | None:
        """In responses all times have the same format."""
        if schema.get("function") is iso_milliseconds:
            return {"type": "string", "format": "date-time", "pattern": MOMENT_PATTERN}
        return super().ser_schema(schema)

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Object schema with the docstrings of the class and its fields as descriptions."""
        json_schema = super().model_schema(schema)
        json_schema.pop("title", None)
        cls: type[BaseModel] = schema["cls"]
        json_schema["description"] = markdown(cls.__doc__)
        properties = json_schema.get("properties")
        if properties is None:
            return json_schema
        if issubclass(cls, Message):
            for name in self.omitted & properties.keys():
                del properties[name]
        docstrings = _field_docstrings(cls)
        for name, property_schema in properties.items():
            description = markdown(property_schema.get("description") or docstrings.get(name))
            if "default" in property_schema:
                description = f"{description} Default: `{_written(property_schema.pop('default'))}`.".strip()
            if description:
                property_schema["description"] = description
        if self.closed and self.mode == "validation":
            json_schema["additionalProperties"] = False
        return json_schema


def _written(default: Any) -> str:
    """A default as JSON; null fields of an object are left out, as in requests."""
    if isinstance(default, dict):
        default = {name: value for name, value in default.items() if value is not None}
    return json.dumps(default)


def _field_docstrings(cls: type[BaseModel]) -> dict[str, str]:
    """Return the strings below the fields of a class and its bases.

    pydantic could read them too (``use_attribute_docstrings``), but would then parse every class at each start.
    """
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
            assert isinstance(definition, ast.ClassDef)  # noqa: S101 -- the source of a class
            found.update(_attribute_docstrings(definition))
    return found


def _attribute_docstrings(definition: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in pairwise(definition.body):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, text


class Schemas:
    """Component schemas of a document.

    Args:
        requests: models of request bodies.
        responses: models of response bodies.
        generator: creates the schemas.
    """

    def __init__(
        self,
        requests: Iterable[type[BaseModel]],
        responses: Iterable[type[BaseModel]],
        generator: type[BodySchemas] = BodySchemas,
    ) -> None:
        models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
            *((model, "validation") for model in dict.fromkeys(requests)),
            *((model, "serialization") for model in dict.fromkeys(responses)),
        ]
        references, definitions = models_json_schema(models, schema_generator=generator, ref_template=REF_TEMPLATE)
        self._references = {model: _with_component_names(reference) for model, reference in references.items()}
        self.components: dict[str, Any] = {
            _component_name(name): _with_component_names(schema)
            for name, schema in sorted(definitions.get("$defs", {}).items())
        }

    def request(self, model: type[BaseModel]) -> dict[str, Any]:
        """Reference to the schema of a request body."""
        reference: dict[str, Any] = self._references[model, "validation"]
        return reference

    def response(self, model: type[BaseModel]) -> dict[str, Any]:
        """Reference to the schema of a response body."""
        reference: dict[str, Any] = self._references[model, "serialization"]
        return reference

    def resolve(self, reference: dict[str, Any]) -> dict[str, Any]:
        """The schema that a reference points to."""
        schema: dict[str, Any] = self.components[reference["$ref"].rpartition("/")[2]]
        return schema


def _component_name(name: str) -> str:
    """Name of a component. Where the two differ, pydantic names a model ``Banner-Input`` and ``Banner-Output``."""
    return name.removesuffix("-Output").replace("-Input", "Input")


def _with_component_names(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: REF_TEMPLATE.format(model=_component_name(value.rpartition("/")[2]))
            if key == "$ref"
            else _with_component_names(value)
            for key, value in schema.items()
        }
    return [_with_component_names(each) for each in schema] if isinstance(schema, list) else schema
