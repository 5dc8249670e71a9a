"""Mapping between dataclasses and MongoDB documents, and the base class of stores.

A field ``created_at`` is stored as ``createdAt``, and the field ``id`` of a whole document as ``_id``; ``stored_as``
declares another name. Values are converted by their type annotation:

- enum members become their values,
- nested dataclasses and pydantic models become subdocuments, whose ``id`` keeps its name,
- a union of pydantic models with a discriminator is dumped and validated by pydantic,
- tuples, lists and sets become arrays, dictionaries become subdocuments,
- None and every other value is stored as it is, so it must be a type that BSON has.

A document that lacks a field, because the field was added later, takes the default of the dataclass.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from dataclasses import MISSING, field, fields, is_dataclass
from enum import Enum
from operator import attrgetter, methodcaller
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, Discriminator, RootModel, TypeAdapter

from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.errors import Refusal
from shared.mongo import Database, Document

Entity = TypeVar("Entity")
Convert = Callable[[Any], Any]
_STORED_AS: Final = "stored_as"
_ARRAYS: Final = (tuple, list, set, frozenset)


def stored_as(name: str, *, default: Any = MISSING) -> Any:
    """Declare a dataclass field whose name in documents is not its own name in camel case."""
    metadata = {_STORED_AS: name}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def document_of(entity: Any) -> Document:
    """Convert a dataclass instance to a document; raise TypeError for a field whose type can't be mapped."""
    return _mapping(type(entity), _WHOLE).encode(entity)


def entity_of(kind: type[Entity], document: Document) -> Entity:
    """Convert a document to an instance of a dataclass.

    Raises:
        TypeError: the document lacks a field that has no default, or the class has a field whose type can't be mapped.
    """
    entity: Entity = _mapping(kind, _WHOLE).decode(document)
    return entity


def without_blank_texts(document: Document, field_name: str) -> Document:
    """Return the document with None for every empty or blank text in one of its subdocuments, if it has that one."""
    nested = document.get(field_name)
    if nested is None:
        return document
    known = {name: None if isinstance(value, str) and not value.strip() else value for name, value in nested.items()}
    return {**document, field_name: known}


class _Mapping:
    """Mapping of one class; complete after ``add_fields``, so that recursive classes can refer to it before."""

    __slots__ = ("_decoders", "_encoders", "_kind", "_names")

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind
        self._names: tuple[tuple[str, str], ...] = ()
        self._encoders: list[tuple[str, Convert]] = []
        self._decoders: list[tuple[str, Convert]] = []

    def add_fields(self, *, nested: bool) -> None:
        if issubclass(self._kind, BaseModel):
            names = [(name, _camel(name)) for name in self._kind.model_fields]
        else:
            names = [(each.name, each.metadata.get(_STORED_AS, _camel(each.name))) for each in fields(self._kind)]
        if not nested:
            names = [(name, "_id" if stored == "id" else stored) for name, stored in names]
        self._names = tuple(names)
        hints = get_type_hints(self._kind, include_extras=True)
        for name, stored in names:
            try:
                encode, decode = _conversions(hints[name])
            except TypeError as unmapped:
                raise TypeError(f"{self._kind.__name__}.{name}: {unmapped}") from None
            if encode is not None:
                self._encoders.append((stored, encode))
            if decode is not None:
                self._decoders.append((name, decode))

    def encode(self, entity: Any) -> Document:
        document = {stored: getattr(entity, name) for name, stored in self._names}
        for stored, encode in self._encoders:
            if (value := document[stored]) is not None:
                document[stored] = encode(value)
        return document

    def decode(self, document: Document) -> Any:
        values = {name: document[stored] for name, stored in self._names if stored in document}
        for name, decode in self._decoders:
            if (value := values.get(name)) is not None:
                values[name] = decode(value)
        return self._kind(**values)


_WHOLE: Final[dict[type[Any], _Mapping]] = {}
_NESTED: Final[dict[type[Any], _Mapping]] = {}


def _mapping(kind: type[Any], known: dict[type[Any], _Mapping]) -> _Mapping:
    mapping = known.get(kind)
    if mapping is None:
        mapping = known[kind] = _Mapping(kind)
        try:
            mapping.add_fields(nested=known is _NESTED)
        except TypeError:
            del known[kind]
            raise
    return mapping


def _conversions(hint: Any) -> tuple[Convert | None, Convert | None]:
    """Return the conversions of a value of this type to and from its stored form; None if it is stored as it is.

    The conversions never receive None.

    Raises:
        TypeError: a stored value does not identify the type that it had.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated_conversions(hint, *arguments)
    if origin in (Union, UnionType):
        alternatives = [each for each in arguments if each is not NoneType]
        return _conversions(alternatives[0]) if len(alternatives) == 1 else _unconverted(hint, alternatives)
    if hint in _ARRAYS or origin in _ARRAYS:
        return _array_conversions(hint, origin or hint, arguments)
    if origin is dict:
        return _dict_conversions(arguments[1])
    if origin is not None:
        return _unconverted(hint, arguments)
    if not isinstance(hint, type):
        return None, None
    if issubclass(hint, Enum):
        return attrgetter("value"), hint
    if issubclass(hint, RootModel):
        return _root_conversions(hint)
    if is_dataclass(hint) or issubclass(hint, BaseModel):
        nested = _mapping(hint, _NESTED)
        return nested.encode, nested.decode
    return None, None


def _annotated_conversions(hint: Any, annotated: Any, *metadata: Any) -> tuple[Convert | None, Convert | None]:
    if any(isinstance(each, Discriminator) for each in metadata):
        return methodcaller("model_dump"), TypeAdapter(hint).validate_python
    return _conversions(annotated)


def _unconverted(hint: Any, parts: Any) -> tuple[None, None]:
    if any(_conversions(part) != (None, None) for part in parts if part is not Ellipsis):
        raise TypeError(f"a value of {hint} can't be mapped")
    return None, None


def _array_conversions(hint: Any, kind: type[Any], arguments: tuple[Any, ...]) -> tuple[Convert, Convert]:
    if kind is tuple and Ellipsis not in arguments:
        _unconverted(hint, arguments)
        return list, tuple
    encode, decode = _conversions(arguments[0]) if arguments else (None, None)
    return (
        list if encode is None else lambda values: [encode(value) for value in values],
        kind if decode is None else lambda values: kind([decode(value) for value in values]),
    )


def _dict_conversions(value_hint: Any) -> tuple[Convert | None, Convert | None]:
    encode, decode = _conversions(value_hint)
    if encode is None or decode is None:
        return None, None
    return (
        lambda values: {key: encode(value) for key, value in values.items()},
        lambda values: {key: decode(value) for key, value in values.items()},
    )


def _root_conversions(kind: type[RootModel[Any]]) -> tuple[Convert, Convert]:
    encode, decode = _conversions(kind.model_fields["root"].annotation)
    return (
        (lambda model: model.root) if encode is None else lambda model: encode(model.root),
        kind if decode is None else lambda value: kind(decode(value)),
    )


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


class Versioned(Protocol):
    """An entity that is stored as one document and replaced by version."""

    @property
    def id(self) -> str:
        """``_id`` of the document."""

    @property
    def version(self) -> int:
        """Version of the document: 1 when inserted, incremented by every replace."""


Row = TypeVar("Row", bound=Versioned)


class Rows(Generic[Row]):
    """Base class of stores: a collection whose documents are entities of one class.

    ``class Clients(Rows[Client], missing=ClientNotFound)`` stores clients in the collection named ``COLLECTION``. The
    class argument ``missing`` is the refusal of ``get``, required by stores that use it. ``taken`` is the refusal if a
    unique index rejects a new entity; by default the handler runs again and finds the entity that is stored by then.

    A store whose documents changed their shape overrides ``_upgraded``, so that older ones can be read. A migration
    (``shared.migrations``) rewrites them.
    """

    _name: ClassVar[str]
    _kind: type[Row]
    _taken: type[Refusal] | None
    _missing: type[Refusal] | None

    def __init_subclass__(cls, *, taken: type[Refusal] | None = None, missing: type[Refusal] | None = None) -> None:
        super().__init_subclass__()
        cls._name = cls.__dict__["COLLECTION"]
        (cls._kind,) = get_args(cls.__dict__["__orig_bases__"][0])
        cls._taken = taken
        cls._missing = missing

    def __init__(self, database: Database) -> None:
        self._collection = database[self._name]
        self._by_id = BatchLoader(self._collection)

    async def get(self, id: str) -> Row:  # noqa: A002 -- the field's name
        """Return the entity with this ID; raise ``missing`` if there is none."""
        document = await self._by_id.find_one(id)
        if document is not None:
            return self._read(document)
        raise self._missing or TypeError(f"{type(self).__name__} declares no refusal for a missing entity")

    async def find(self, id: str) -> Row | None:  # noqa: A002 -- the field's name
        """Return the entity with this ID; None if there is none."""
        return self._read_or_none(await self._by_id.find_one(id))

    def add(self, entity: Row, work: Work) -> None:
        """Insert a new entity."""
        work.insert(self._collection, self._document(entity), taken=self._taken)

    def save(self, entity: Row, work: Work) -> None:
        """Replace the entity; if its stored version has changed since it was read, the handler runs again."""
        work.replace(self._collection, self._document(entity), version=entity.version)

    def add_or_save(self, entity: Row, work: Work, *, stored: Row | None) -> None:
        """Insert the entity if none was read, otherwise replace the one that was read."""
        if stored is None:
            self.add(entity, work)
        else:
            self.save(entity, work)

    def remove(self, entity: Row, work: Work) -> None:
        """Delete the entity; if its stored version has changed since it was read, the handler runs again."""
        work.delete(self._collection, entity.id, version=entity.version)

    def require_unchanged(self, entity: Row, work: Work) -> None:
        """Fail the commit if the stored version has changed since it was read; the handler then runs again."""
        work.require_version(self._collection, entity.id, version=entity.version)

    async def _one(self, query: Document) -> Row | None:
        return self._read_or_none(await self._collection.find_one(query))

    async def _all(self, documents: AsyncIterable[Document]) -> list[Row]:
        return [self._read(document) async for document in documents]

    def _read_or_none(self, document: Document | None) -> Row | None:
        return None if document is None else self._read(document)

    def _read(self, document: Document) -> Row:
        return entity_of(self._kind, self._upgraded(document))

    def _upgraded(self, document: Document) -> Document:
        """Return a document of any age in the present shape."""
        return document

    def _document(self, entity: Row) -> Document:
        return document_of(entity)
