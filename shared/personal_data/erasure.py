"""Erasure of a data subject's personal data, a bounded number of documents per message.

When a service has erased everything it confirms to auth, and erases once more after 25 hours: messages that were on
their way during the erasure may have stored personal data since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.messages.personal_data import ConfirmErasure, EraseUserData, NoteErasureWait, ThirdParty
from shared.mongo import Database, Document
from shared.personal_data.subjects import DataSubject, PersonalDataCollection, holder_of
from shared.sealing import Sealer
from shared.telemetry import log

MAX_DOCUMENTS: Final = 500
"""Documents erased by one message."""
SECOND_ERASURE_DELAY: Final = timedelta(hours=25)
"""Mails are retried for a day; after this delay no message sent before the erasure is left."""
MAX_ATTEMPTS: Final = 8
"""Attempts that a service schedules by itself during an outage of a provider; with growing pauses they take most of an
hour. After them auth sends the command again, every hour. Two schedules at once would duplicate the attempts."""


async def erase_part(
    command: EraseUserData, work: Work, collections: Sequence[PersonalDataCollection], *, sealer: Sealer
) -> bool:
    """Erase up to ``MAX_DOCUMENTS`` documents; return True if none is left, otherwise publish the command again."""
    if await erase_batch(DataSubject.of(command, sealer), work, collections):
        return True
    work.publish(command.model_copy(update={"key": work.key}))
    return False


async def erase_batch(subject: DataSubject, work: Work, collections: Sequence[PersonalDataCollection]) -> bool:
    """Erase up to ``MAX_DOCUMENTS`` documents; return True if none is left."""
    remaining = MAX_DOCUMENTS
    for source in collections:
        query = (source.erasure_query or source.query)(subject)
        documents = await source.collection.find(query).limit(remaining).to_list()
        for document in documents:
            _erase(source, document, work)
        remaining -= len(documents)
        if remaining <= 0:
            return False
    return True


def finish_erasure(command: EraseUserData, work: Work) -> None:
    """Report to auth that nothing is left, and schedule the second erasure."""
    if command.again:
        return
    work.publish(ConfirmErasure(key=command.process_id, process_id=command.process_id, holder=holder_of(command)))
    second = command.model_copy(update={"key": work.key, "again": True, "attempt": 1})
    work.publish(second, at=work.now + SECOND_ERASURE_DELAY)


def postpone_erasure(command: EraseUserData, work: Work, *, waits_for: ThirdParty, reason: str, at: datetime) -> None:
    """Report to auth that the erasure waits for a provider, and schedule the next attempt.

    ``reason`` is the failure, without personal data.
    """
    log.warning("erasure postponed", process=command.process_id, waits_for=waits_for, reason=reason)
    work.publish(
        NoteErasureWait(
            key=command.process_id,
            process_id=command.process_id,
            holder=holder_of(command),
            waits_for=waits_for,
            reason=reason,
        )
    )
    # Auth repeats only the first erasure, so the second one always schedules its own attempts.
    if command.again or command.attempt <= MAX_ATTEMPTS:
        work.publish(command.model_copy(update={"key": work.key, "attempt": command.attempt + 1}), at=at)


class ErasedIds:
    """Store of the IDs of erased users and of their objects at providers; they carry no personal data.

    Documents are kept for ever, because an event about an erased user may arrive at any time.
    """

    COLLECTION: Final = "erased"
    INDEXES: Final = ()

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._collection)

    async def contains_any(self, *ids: str | None) -> bool:
        """Return True if at least one of these IDs was erased; None is ignored."""
        return any(await self._found(each for each in ids if each is not None))

    async def contains_all(self, ids: Iterable[str]) -> bool:
        """Return True if all of these IDs were erased."""
        return all(await self._found(ids))

    async def _found(self, ids: Iterable[str]) -> list[Document | None]:
        return await asyncio.gather(*(self._by_id.find_one(each) for each in ids))

    async def add(self, ids: Iterable[str], work: Work) -> None:
        """Insert the IDs that are not stored yet."""
        for each in ids:
            if await self._by_id.find_one(each) is None:
                work.insert(self._collection, {"_id": each, "at": work.now})


def _erase(source: PersonalDataCollection, document: Document, work: Work) -> None:
    version = document.get("version")
    redacted = None if source.redact is None else source.redact(document)
    if redacted is None:
        work.delete(source.collection, document["_id"], version=version)
    elif version is not None:
        work.replace(source.collection, redacted, version=version)
    else:
        # Documents without a version are never replaced by others, so delete and insert can't lose an update.
        work.delete(source.collection, document["_id"], version=None)
        work.insert(source.collection, redacted)
