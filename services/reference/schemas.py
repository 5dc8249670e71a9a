"""What do bodies look like? JSON Schema 2020-12 of the models that read and write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from services.reference.docstrings import of_fields, promise
from shared.messages import Message, iso_milliseconds

TEMPLATE: Final = "#/components/schemas/{model}"
MOMENT: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"
NOT_IN_BODIES: Final = frozenset({"key", "locales"})
"""Fields of messages that no body says: they come from the method's table, and from a header."""


class Bodies(GenerateJsonSchema):
    """The schemas of requests, which take no field that they don't name, and of answers, which lack none."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never: a title would be the name once more."""
        del schema
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:  # noqa: FBT001 -- pydantic's
        """An answer has every field, those that are null included."""
        return True if self.mode == "serialization" else super().field_is_required(field, total)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """A default of a request's; null is what everybody takes a missing field for."""
        found = super().default_schema(schema)
        if found.get("default", ...) is None or self.mode == "serialization":
            found.pop("default", None)
        return found

    def ser_schema(self, schema: Any) -> JsonSchemaValue | None:
        """What a serializer writes; moments all have one form."""
        if schema.get("function") is iso_milliseconds:
            return {"type": "string", "format": "date-time", "pattern": MOMENT}
        return super().ser_schema(schema)

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """An object, with what the source says of it and of its fields."""
        found = super().model_schema(schema)
        found.pop("title", None)
        kind: type[BaseModel] = schema["cls"]
        if issubclass(kind, Message):
            said = promise(kind)
            found["description"] = said.text
        elif "description" in found:
            found["description"] = found["description"].replace("``", "`")
        if "properties" not in found:
            return found
        said_of_fields = of_fields(kind)
        for name in [name for name in found["properties"] if issubclass(kind, Message) and name in NOT_IN_BODIES]:
            del found["properties"][name]
        for name, of_field in found["properties"].items():
            if name in said_of_fields:
                of_field["description"] = said_of_fields[name]
        if self.mode == "validation":
            found["additionalProperties"] = False
        return found


class Schemas:
    """The schemas of a document, each once.

    Args:
        taken: the models that requests become.
        given: the models that answers are.
    """

    def __init__(self, taken: Iterable[type[BaseModel]], given: Iterable[type[BaseModel]]) -> None:
        models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in dict.fromkeys(taken)]
        models += [(model, "serialization") for model in dict.fromkeys(given)]
        references, found = models_json_schema(models, schema_generator=Bodies, ref_template=TEMPLATE)
        self._references = {key: _renamed(reference) for key, reference in references.items()}
        self.all: dict[str, Any] = {
            _name(name): _renamed(schema) for name, schema in sorted(found.get("$defs", {}).items())
        }

    def taken(self, model: type[BaseModel]) -> dict[str, Any]:
        """A reference to what a request is to be."""
        found: dict[str, Any] = self._references[model, "validation"]
        return found

    def given(self, model: type[BaseModel]) -> dict[str, Any]:
        """A reference to what an answer is."""
        found: dict[str, Any] = self._references[model, "serialization"]
        return found

    def fields(self, reference: dict[str, Any]) -> dict[str, Any]:
        """The fields of what is referred to."""
        found: dict[str, Any] = self.all[reference["$ref"].rpartition("/")[2]]["properties"]
        return found


def _name(name: str) -> str:
    """Pydantic tells ``Banner-Input`` from ``Banner-Output`` where the two differ."""
    return name.removesuffix("-Output").replace("-Input", "Given")


def _renamed(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: TEMPLATE.format(model=_name(value.rpartition("/")[2])) if key == "$ref" else _renamed(value)
            for key, value in schema.items()
        }
    return [_renamed(each) for each in schema] if isinstance(schema, list) else schema
