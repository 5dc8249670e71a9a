"""How does an entity become a document? Its fields in camelCase, its id as ``_id``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final, TypeVar

from shared.mongo import Document

Entity = TypeVar("Entity")
_NAMES: Final[dict[type[Any], tuple[tuple[str, str], ...]]] = {}
"""The fields of each class with their names at rest."""


def document_of(entity: Any) -> Document:
    """The document of a dataclass whose fields MongoDB can keep as they are."""
    return {at_rest: getattr(entity, name) for name, at_rest in _names(type(entity))}


def entity_of(kind: type[Entity], document: Document) -> Entity:
    """The dataclass that a document was made of."""
    # A field that came later is absent from older documents; the entity has a default for it.
    return kind(**{name: document[at_rest] for name, at_rest in _names(kind) if at_rest in document})


def _names(kind: type[Any]) -> tuple[tuple[str, str], ...]:
    names = _NAMES.get(kind)
    if names is None:
        names = tuple((field.name, "_id" if field.name == "id" else _camel(field.name)) for field in fields(kind))
        _NAMES[kind] = names
    return names


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
