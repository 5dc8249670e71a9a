"""Pages of a collection in the order of a time.

Documents with the same time are ordered by an ID. Reading a page costs no more than the page, whatever the size of the
collection and the position of the page, if an index has the filtered fields followed by time and ID. One index of
several fields with few values serves every filter on some of them: see ``with_all_values``.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from shared.errors import InvalidCursor
from shared.indexes import growing_index
from shared.mongo import Collection, Document

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True)
class TimeOrder:
    """An order of documents: the stored fields of the time and of the ID, and the direction of both."""

    time: str
    id: str = "_id"
    direction: ClassVar[int]
    next_time: ClassVar[str]
    """Operator for the times of the next page, compared with that of the last document."""
    seen_id: ClassVar[str]
    """Operator for the IDs of documents with that time that were on earlier pages."""

    def index(self, *fields: str, scattered: bool = False, **options: Any) -> IndexModel:
        """Return the index for a filter on these fields; without fields that for all documents and for a period.

        Args:
            fields: the fields.
            scattered: whether they have many values, such as IDs of users.
            options: those of ``createIndexes``.
        """
        keys = [*((field, ASCENDING) for field in fields), (self.time, self.direction), (self.id, self.direction)]
        return IndexModel(keys, **options) if scattered else growing_index(keys, **options)

    async def page(
        self,
        collection: Collection,
        conditions: Document,
        *,
        limit: int,
        cursor: str | None,
        since: datetime | None = None,
        until: datetime | None = None,
        index: IndexModel | None = None,
    ) -> list[Document]:
        """Return the documents of a page, and one more if another page follows.

        Args:
            collection: the collection.
            conditions: a MongoDB filter that does not use the operator ``$nor`` or the field of the time.
            limit: documents on the page.
            cursor: ``cursor_of`` the last document of the previous page; None for the first page.
            since: earliest time.
            until: time before which the documents are.
            index: an existing index of the collection to read; None lets MongoDB choose one.

        Raises:
            InvalidCursor: no page ended with this cursor.
            PyMongoError: the query failed.
        """
        query, bounds = dict(conditions), {"$gte": since, "$lt": until}
        if cursor is not None:
            last_time, last_id = _parse_cursor(cursor)
            # Not as "$or" of both cases: that would compete with the index of the filter.
            earlier = bounds.get(self.next_time)
            bounds[self.next_time] = last_time if earlier is None else max(earlier, last_time)
            query["$nor"] = [{self.time: last_time, self.id: {self.seen_id: last_id}}]
        if any(bounds.values()):
            query[self.time] = {operator: moment for operator, moment in bounds.items() if moment is not None}
        return (
            await collection.find(query, hint=None if index is None else index.document["name"])
            .sort([(self.time, self.direction), (self.id, self.direction)])
            .limit(limit + 1)
            .to_list()
        )


class NewestFirst(TimeOrder):
    """The newest documents first."""

    direction = DESCENDING
    next_time, seen_id = "$lte", "$gte"


class OldestFirst(TimeOrder):
    """The oldest documents first."""

    direction = ASCENDING
    next_time, seen_id = "$gte", "$lte"


def with_all_values(conditions: Document, values: Mapping[str, Sequence[str]]) -> Document:
    """Return a MongoDB filter with a condition for each of some fields: its own, or any value that the field can have.

    So an index of these fields, followed by time and ID, serves a filter on any of them. MongoDB reads a range of the
    index for each combination of values and merges the ranges in their order, which costs one index entry per range.
    There may be 200 combinations, MongoDB's ``internalQueryMaxScansToExplode``; with more it would sort in memory. Pass
    the index to ``page``, since MongoDB may prefer another one.

    Args:
        conditions: the filter.
        values: all values of each field.
    """
    return {**{field: {"$in": list(each)} for field, each in values.items()}, **conditions}


def cursor_of(at: datetime, last_id: str) -> str:
    """Return the cursor of the next page, from time and ID of the last entry."""
    return urlsafe_b64encode(f"{(at - _EPOCH) // _MILLISECOND}.{last_id}".encode()).decode().rstrip("=")


def _parse_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        milliseconds, _, last_id = text.partition(".")
        return _EPOCH + timedelta(milliseconds=int(milliseconds)), last_id
    except (binascii.Error, ValueError, OverflowError):
        raise InvalidCursor from None
