"""Export of a data subject's personal data, one bounded part per message.

Each message sends one part to auth and orders the next one, until every collection has been read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.personal_data import AddExportedPart, ExportUserData
from shared.personal_data.subjects import DataSubject, PersonalDataCollection, holder_of
from shared.sealing import Sealer

MAX_DOCUMENTS: Final = 500
"""Documents in one part."""
MAX_BYTES: Final = 256 * 1024
"""JSON bytes in one part. Sealing adds a third, and a message may have 512 KiB."""


async def export_part(
    command: ExportUserData, work: Work, collections: Sequence[PersonalDataCollection], *, sealer: Sealer
) -> None:
    """Send one part of the export to auth and order the next one.

    The command names the position: an index into ``collections``, which always have the same order, and the last
    exported ``_id``.
    """
    source = collections[command.holding]
    query = source.query(DataSubject.of(command, sealer))
    if command.after is not None:
        query = {"$and": [query, {"_id": {"$gt": command.after}}]}
    documents = await source.collection.find(query).sort("_id", 1).limit(MAX_DOCUMENTS).to_list()
    exported: list[str] = []
    size = 0
    for document in documents:
        text = json.dumps(source.exported(document), ensure_ascii=False)
        size += len(text.encode()) + 1
        if exported and size > MAX_BYTES:
            break
        exported.append(text)
    more_in_collection = len(exported) < len(documents) or len(documents) == MAX_DOCUMENTS
    last = not more_in_collection and command.holding == len(collections) - 1
    work.publish(
        AddExportedPart(
            key=command.process_id,
            process_id=command.process_id,
            holder=holder_of(command),
            run=command.run,
            number=command.number,
            collection=source.collection.name,
            documents=Sealed.of(f"[{','.join(exported)}]"),
            last=last,
        )
    )
    if last:
        return
    position = {"holding": command.holding + 1, "after": None}
    if more_in_collection:
        position = {"after": documents[len(exported) - 1]["_id"]}
    work.publish(command.model_copy(update={"key": work.key, "number": command.number + 1, **position}))
