"""How is an entity kept that is one document? Read whole, and written whole under its version."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Generic, Protocol, TypeVar

from services.billing.store.documents import document_of, entity_of
from shared.errors import Refusal
from shared.mongo import Collection, Document
from shared.work import Work


class Versioned(Protocol):
    """What can be kept so."""

    @property
    def id(self) -> str:
        """Its ``_id``."""

    @property
    def version(self) -> int:
        """Counts from 1; grows with every write."""


Entity = TypeVar("Entity", bound=Versioned)


class Rows(Generic[Entity]):
    """The entities of one kind.

    Args:
        collection: where.
        kind: their class.
        taken: what a new one is refused with when a unique index says no; without, the handler runs again, and reads
            what is there by then.
    """

    def __init__(self, collection: Collection, kind: type[Entity], *, taken: type[Refusal] | None = None) -> None:
        self._collection = collection
        self._kind = kind
        self._taken = taken

    def add(self, entity: Entity, work: Work) -> None:
        """Insert a new one."""
        work.insert(self._collection, self._written(entity), taken=self._taken)

    def save(self, entity: Entity, work: Work) -> None:
        """Replace, if nobody has changed it meanwhile; otherwise the handler runs again."""
        work.replace(self._collection, self._written(entity), version=entity.version)

    def remove(self, entity: Entity, work: Work) -> None:
        """Delete, if nobody has changed it meanwhile; otherwise the handler runs again."""
        work.delete(self._collection, entity.id, version=entity.version)

    async def _one(self, query: Document) -> Entity | None:
        return self._read_or_none(await self._collection.find_one(query))

    async def _all(self, documents: AsyncIterable[Document]) -> list[Entity]:
        return [self._read(document) async for document in documents]

    def _read_or_none(self, document: Document | None) -> Entity | None:
        return None if document is None else self._read(document)

    def _read(self, document: Document) -> Entity:
        return entity_of(self._kind, document)

    def _written(self, entity: Entity) -> Document:
        return document_of(entity)
