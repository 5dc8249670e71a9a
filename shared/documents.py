"""Mapping between dataclasses and MongoDB documents, and the stores built on it.

A field ``created_at`` is stored as ``createdAt`` and the field ``id`` of a whole document as ``_id``; ``stored_as``
declares another name. Nested dataclasses and message parts become subdocuments, tuples become arrays, and enum members
their values. A document that lacks a field, because the field was added later, takes the default of the dataclass.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Generic, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from shared.bus.work import Work
from shared.errors import Refusal
from shared.mongo import Collection, Document

Entity = TypeVar("Entity")
Convert = Callable[[Any], Any]
_STORED_AS: Final = "stored_as"


def stored_as(name: str, *, default: Any = MISSING) -> Any:
    """A dataclass field that is stored under another name than its own in camel case.

    Args:
        name: the field's name in the document.
        default: the field's default value.
    """
    metadata = {_STORED_AS: name}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def document_of(entity: Any) -> Document:
    """The document of a dataclass instance."""
    return _encoded(entity, _fields(type(entity), nested=False))


def entity_of(kind: type[Entity], document: Document) -> Entity:
    """The dataclass instance that a document was made of.

    Raises:
        TypeError: the document lacks a field that has no default.
    """
    return _decoded(kind, document, _fields(kind, nested=False))


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a class with its stored name and its conversions; None where the value is stored as it is."""

    name: str
    stored: str
    encode: Convert | None
    decode: Convert | None


_CACHED: Final[dict[tuple[type[Any], bool], tuple[_Field, ...]]] = {}


def _fields(kind: type[Any], *, nested: bool) -> tuple[_Field, ...]:
    mapped = _CACHED.get((kind, nested))
    if mapped is None:
        mapped = _CACHED[kind, nested] = _mapped(kind, nested=nested)
    return mapped


def _mapped(kind: type[Any], *, nested: bool) -> tuple[_Field, ...]:
    hints = get_type_hints(kind)
    if issubclass(kind, BaseModel):
        named = [(name, _camel(name)) for name in kind.model_fields]
    else:
        named = [(each.name, each.metadata.get(_STORED_AS, _camel(each.name))) for each in fields(kind)]
    if not nested:
        named = [(name, "_id" if stored == "id" else stored) for name, stored in named]
    return tuple(_Field(name, stored, *_conversions(hints[name])) for name, stored in named)


def _conversions(hint: Any) -> tuple[Convert | None, Convert | None]:
    """The conversions of a value of this type to and from its stored form."""
    if get_origin(hint) in (Union, UnionType):
        (hint, *others) = [each for each in get_args(hint) if each is not NoneType]
        if others:
            return None, None
        encode, decode = _conversions(hint)
        return _optional(encode), _optional(decode)
    if get_origin(hint) is tuple:
        encode, decode = _conversions(get_args(hint)[0])
        return (
            list if encode is None else lambda values: [encode(value) for value in values],
            tuple if decode is None else lambda values: tuple(decode(value) for value in values),
        )
    if not isinstance(hint, type):
        return None, None
    if issubclass(hint, Enum):
        return lambda member: member.value, hint
    if is_dataclass(hint) or issubclass(hint, BaseModel):
        nested = _fields(hint, nested=True)
        return lambda part: _encoded(part, nested), lambda document: _decoded(hint, document, nested)
    return None, None


def _optional(convert: Convert | None) -> Convert | None:
    return convert and (lambda value: None if value is None else convert(value))


def _encoded(entity: Any, mapped: tuple[_Field, ...]) -> Document:
    return {
        each.stored: getattr(entity, each.name) if each.encode is None else each.encode(getattr(entity, each.name))
        for each in mapped
    }


def _decoded(kind: type[Entity], document: Document, mapped: tuple[_Field, ...]) -> Entity:
    return kind(
        **{
            each.name: document[each.stored] if each.decode is None else each.decode(document[each.stored])
            for each in mapped
            if each.stored in document
        }
    )


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


class Versioned(Protocol):
    """An entity that is stored as one document and replaced by version."""

    @property
    def id(self) -> str:
        """The document's ``_id``."""

    @property
    def version(self) -> int:
        """Counts from 1 and grows with every write."""


Row = TypeVar("Row", bound=Versioned)


class Rows(Generic[Row]):
    """A collection whose documents are entities of one class.

    Args:
        collection: where they are stored.
        kind: their class.
        taken: the refusal when a unique index rejects a new entity; without one the handler runs again and finds the
            entity that is there by then.
    """

    def __init__(self, collection: Collection, kind: type[Row], *, taken: type[Refusal] | None = None) -> None:
        self._collection = collection
        self._kind = kind
        self._taken = taken

    def add(self, entity: Row, work: Work) -> None:
        """Insert a new entity."""
        work.insert(self._collection, self._document(entity), taken=self._taken)

    def save(self, entity: Row, work: Work) -> None:
        """Replace the entity; if its version has changed, the handler runs again."""
        work.replace(self._collection, self._document(entity), version=entity.version)

    def remove(self, entity: Row, work: Work) -> None:
        """Delete the entity; if its version has changed, the handler runs again."""
        work.delete(self._collection, entity.id, version=entity.version)

    async def _one(self, query: Document) -> Row | None:
        return self._read_or_none(await self._collection.find_one(query))

    async def _all(self, documents: AsyncIterable[Document]) -> list[Row]:
        return [self._read(document) async for document in documents]

    def _read_or_none(self, document: Document | None) -> Row | None:
        return None if document is None else self._read(document)

    def _read(self, document: Document) -> Row:
        return entity_of(self._kind, document)

    def _document(self, entity: Row) -> Document:
        return document_of(entity)
