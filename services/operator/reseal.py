"""Resealing of the databases: what older sealing keys have sealed is sealed again with the first one.

Sealed values are found by their form and unsealed, so a field needs no declaration here. Keyed hashes have a similar
form; they can't be made anew without what was hashed, and are only counted. The bodies of messages in inbox rows and
timers stay as they are, since receivers compare them; they expire, as the records on Kafka do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from services.auth.personal_data.handlers import SEALING_PURPOSE as PEOPLE
from services.auth.signing_keys.key_pairs import SEALING_PURPOSE as SIGNING_KEYS
from services.auth.tokens.handlers import SUCCESSORS
from services.operator.databases import opened_database
from shared.bus.handling import REPLY_RECEIVER
from shared.mongo import Database, Document
from shared.sealing import CannotUnseal, Sealer

MAX_PASSES: Final = 5
"""A service may store a value of before once more while it is resealed; another pass finds it."""
REPORT_EVERY: Final = 1_000
"""Documents between two reports of the progress."""
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_SEALED: Final = re.compile(r"[A-Za-z0-9_-]{38,}={0,2}")
"""Base64 of a nonce of 12 bytes, the ciphertext and a tag of 16 bytes."""
Path = tuple[str, ...]


@dataclass(slots=True)
class Resealing:
    """Outcome of resealing one database.

    Attributes:
        documents: documents that the last pass has read.
        resealed: values sealed again, by collection.
        left: values that remain under each older key, as ``(key ID, collection, what)``.
    """

    documents: int = 0
    resealed: Counter[str] = field(default_factory=Counter)
    left: Counter[tuple[str, str, str]] = field(default_factory=Counter)


class Resealer:
    """Seals the values in the database of one service again.

    Args:
        database: database of the service.
        service: its name.
        sealer: holds the sealing keys.
        key_ids: IDs of the older keys; other values are left as they are.
        progress: called with the number of documents that were read.
    """

    def __init__(
        self,
        database: Database,
        service: str,
        sealer: Sealer,
        key_ids: frozenset[str],
        *,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._progress = progress
        self._older = key_ids - {sealer.active_key_id}
        self._receivers = (service, f"{service}.rows", SIGNING_KEYS, PEOPLE, SUCCESSORS, REPLY_RECEIVER)

    async def reseal(self) -> Resealing:
        """Pass over all documents until nothing is left to seal again; may be interrupted and repeated.

        Raises:
            PyMongoError: MongoDB is unavailable; what was resealed stays resealed.
        """
        outcome = Resealing()
        for _ in range(MAX_PASSES):
            before = outcome.resealed.total()
            outcome.documents, outcome.left = 0, Counter()
            async for collection, document in self._documents():
                outcome.documents += 1
                await self._reseal_document(collection, document, outcome)
                if outcome.documents % REPORT_EVERY == 0:
                    self._progress(outcome.documents)
            self._progress(outcome.documents)
            if outcome.resealed.total() == before:
                break
        return outcome

    async def _documents(self) -> AsyncIterator[tuple[str, Document]]:
        for name in sorted(await self._database.list_collection_names()):
            async for document in self._database[name].find():
                yield name, document

    async def _reseal_document(self, collection: str, document: Document, outcome: Resealing) -> None:
        for path, value in _texts(document):
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            key_id, dot, sealed = text.partition(".")
            if isinstance(value, bytes) and key_id not in self._older:
                outcome.left.update(self._sealed_in_body(collection, text))
            elif dot and key_id in self._older and _HASH.fullmatch(sealed):
                outcome.left[key_id, collection, "keyed hash"] += 1
            elif dot and key_id in self._older and _SEALED.fullmatch(sealed):
                # An ID can't be changed.
                plain = None if path[0] == "_id" else self._unsealed(text)
                if plain is None:
                    outcome.left[key_id, collection, "cannot be sealed again"] += 1
                else:
                    await self._replace(collection, document, path, value, plain)
                    outcome.resealed[collection] += 1

    async def _replace(
        self, collection: str, document: Document, path: Path, old: str | bytes, plain: tuple[str, bytes]
    ) -> None:
        new: str | bytes = self._sealer.seal(*plain)
        if isinstance(old, bytes):
            new = str(new).encode()
        name = ".".join(path)
        # Only if it is still the same: a service may have changed the document, or shortened the list.
        await self._database[collection].update_one({"_id": document["_id"], name: old}, {"$set": {name: new}})

    def _unsealed(self, text: str) -> tuple[str, bytes] | None:
        """Return the receiver and the plain text of a sealed value; None if it is none."""
        for receiver in self._receivers:
            try:
                return receiver, self._sealer.unseal(receiver, text)
            except CannotUnseal:
                continue
        return None

    def _sealed_in_body(self, collection: str, body: str) -> Iterator[tuple[str, str, str]]:
        for key_id in self._older:
            if f'"{key_id}.' in body:
                yield key_id, collection, "in the body of a message"


def _texts(value: Any, path: Path = ()) -> Iterator[tuple[Path, str | bytes]]:
    """Return the texts in a document with their paths, those of bytes included."""
    if isinstance(value, str | bytes):
        yield path, value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _texts(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _texts(each, (*path, str(index)))


async def reseal_all(services: Sequence[str], progress: Callable[[str, int], None]) -> dict[str, Resealing]:
    """Seal the databases of these services again, with the settings of the environment.

    Args:
        services: their names.
        progress: called with the service and the number of documents that were read.

    Raises:
        CommandError: a setting is missing or invalid, or MongoDB does not answer.
    """
    outcomes: dict[str, Resealing] = {}
    for service in services:
        async with opened_database(service) as (own, keys):
            resealer = Resealer(own, service, Sealer(keys), frozenset(keys), progress=partial(progress, service))
            outcomes[service] = await resealer.reseal()
    return outcomes
