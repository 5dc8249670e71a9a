"""Data subjects and the collections that hold personal data about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.messages import iso_milliseconds
from shared.messages.personal_data import EraseUserData, ExportUserData, ServiceName
from shared.mongo import Collection, Document
from shared.sealing import Sealer

_MACHINERY: Final = frozenset({"version", "holds"})
"""Fields of the optimistic locking; they hold no personal data."""


@dataclass(frozen=True, slots=True)
class DataSubject:
    """A person, by every identifier that a service may have stored.

    E-mail addresses and phone numbers are in normal form and include removed ones.
    """

    user_id: str
    emails: tuple[str, ...]
    phones: tuple[str, ...]

    @classmethod
    def of(cls, command: ExportUserData | EraseUserData, sealer: Sealer) -> DataSubject:
        """Return the subject of an export or an erasure."""
        identifiers = json.loads(sealer.unseal_secret(type(command).service, command.identifiers))
        return cls(
            command.user_id,
            tuple(value for kind, value in identifiers if kind == "email"),
            tuple(value for kind, value in identifiers if kind == "phone"),
        )


@dataclass(frozen=True, slots=True)
class PersonalDataCollection:
    """A collection that holds personal data.

    Attributes:
        collection: the MongoDB collection.
        query: selects a subject's documents by indexed fields.
        excluded: fields left out of an export: secrets and internal fields.
        to_export: converts a stored document before its export, for example to unseal a field.
        redact: removes the personal data from a document and keeps the rest; by default the whole document is deleted.
        erasure_query: selects the documents to erase, if not all of ``query``. It must not match a redacted document.
    """

    collection: Collection
    query: Callable[[DataSubject], Document]
    excluded: frozenset[str] = frozenset()
    to_export: Callable[[Document], Document] | None = None
    redact: Callable[[Document], Document] | None = None
    erasure_query: Callable[[DataSubject], Document] | None = None

    def exported(self, document: Document) -> dict[str, Any]:
        """Convert a stored document to the JSON values of an export."""
        full = document if self.to_export is None else self.to_export(document)
        excluded = self.excluded | _MACHINERY
        return {
            "id" if name == "_id" else name: _json_value(value) for name, value in full.items() if name not in excluded
        }


def holder_of(command: ExportUserData | EraseUserData) -> ServiceName:
    """Return the service that a part of an export or an erasure belongs to."""
    holder: ServiceName = type(command).service  # type: ignore[assignment]  # the first part of its wire name
    return holder


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso_milliseconds(value)
    if isinstance(value, dict):
        return {name: _json_value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
