"""What does a service hold on a person, how is it handed over, and how is it removed? So much with each message."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from shared.bus.work import Work
from shared.messages import Sealed, iso_milliseconds
from shared.messages.personal_data import (
    AddExportedPart,
    ConfirmErasure,
    EraseUserData,
    ExportUserData,
    NoteErasureWait,
    ServiceName,
    ThirdParty,
)
from shared.mongo import Collection, Document
from shared.sealing import Sealer
from shared.telemetry import log

MOST_DOCUMENTS: Final = 500
"""In one part, and removed by one message."""
MOST_BYTES: Final = 256 * 1024
"""JSON in one part. As ciphertext it is a third larger, and no message of ours may have more than 512 KiB."""
ONCE_MORE: Final = timedelta(hours=25)
"""After so long what was on its way while a person was erased has come: mails are tried again for a day."""
OWN_TRIES: Final = 8
"""How often a service orders its part again by itself while somebody outside can't be asked: with growing pauses these
take most of an hour. Then auth orders it anew, and goes on doing so; two chains of tries would only be in each other's
way."""


@dataclass(frozen=True, slots=True)
class Person:
    """By what a service may know somebody.

    Attributes:
        emails: in normal form; removed ones too. The same for ``phones``.
    """

    user_id: str
    emails: tuple[str, ...]
    phones: tuple[str, ...]

    @classmethod
    def of(cls, command: ExportUserData | EraseUserData, sealer: Sealer) -> Person:
        """The one that a command is about."""
        known = json.loads(sealer.reveal(type(command).service, command.identifiers))
        return cls(
            command.user_id,
            tuple(value for kind, value in known if kind == "email"),
            tuple(value for kind, value in known if kind == "phone"),
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """One collection that holds something on people.

    Attributes:
        collection: where.
        find: which documents are a person's, by indexed fields.
        hidden: fields that are not handed over: secrets, and what serves the machinery.
        show: makes a document as it is handed over of the one that is stored, where a field is sealed.
        erased: what stays of a document, which ``left`` no longer finds; None for nothing.
        left: which documents are to be erased; those of ``find`` by default.
    """

    collection: Collection
    find: Callable[[Person], Document]
    hidden: frozenset[str] = frozenset()
    show: Callable[[Document], Document] | None = None
    erased: Callable[[Document], Document] | None = None
    left: Callable[[Person], Document] | None = None

    def shown(self, document: Document) -> dict[str, Any]:
        """A document as it is handed over."""
        whole = document if self.show is None else self.show(document)
        hidden = self.hidden | {"version", "holds"}
        named = {"id" if name == "_id" else name: value for name, value in whole.items() if name not in hidden}
        plain: dict[str, Any] = _plain(named)
        return plain


async def hand_over(command: ExportUserData, work: Work, holdings: Sequence[Holding], *, sealer: Sealer) -> None:
    """Hand one part over to auth, and order the next one, until there is none."""
    person = Person.of(command, sealer)
    holding = holdings[command.holding]
    query = holding.find(person)
    if command.after is not None:
        query = {"$and": [query, {"_id": {"$gt": command.after}}]}
    documents = await holding.collection.find(query).sort("_id", 1).limit(MOST_DOCUMENTS).to_list()
    shown: list[str] = []
    size = 0
    for document in documents:
        text = json.dumps(holding.shown(document), ensure_ascii=False)
        size += len(text.encode()) + 1
        if shown and size > MOST_BYTES:
            break
        shown.append(text)
    more_here = len(shown) < len(documents) or len(documents) == MOST_DOCUMENTS
    last = not more_here and command.holding == len(holdings) - 1
    work.publish(
        AddExportedPart(
            key=command.process_id,
            process_id=command.process_id,
            holder=_holder(command),
            run=command.run,
            number=command.number,
            collection=holding.collection.name,
            documents=Sealed.of(f"[{','.join(shown)}]"),
            last=last,
        )
    )
    if last:
        return
    where = (
        {"after": documents[len(shown) - 1]["_id"]} if more_here else {"holding": command.holding + 1, "after": None}
    )
    work.publish(command.model_copy(update={"key": work.key, "number": command.number + 1, **where}))


async def remove(command: EraseUserData, work: Work, holdings: Sequence[Holding], *, sealer: Sealer) -> bool:
    """Remove some of what is held on a person.

    Returns:
        Whether that was the rest of it. If not, another order of the same is on its way.
    """
    if await remove_some(Person.of(command, sealer), work, holdings):
        return True
    work.publish(command.model_copy(update={"key": work.key}))
    return False


async def remove_some(person: Person, work: Work, holdings: Sequence[Holding]) -> bool:
    """Remove as much as one message may.

    Returns:
        Whether that was the rest of it.
    """
    room = MOST_DOCUMENTS
    for holding in holdings:
        query = (holding.left or holding.find)(person)
        documents = await holding.collection.find(query).limit(room).to_list()
        for document in documents:
            _erase(holding, document, work)
        room -= len(documents)
        if room <= 0:
            return False
    return True


def confirm(command: EraseUserData, work: Work) -> None:
    """Say that nothing is left; and look once more when what was on its way has come."""
    if command.again:
        return
    work.publish(ConfirmErasure(key=command.process_id, process_id=command.process_id, holder=_holder(command)))
    work.publish(command.model_copy(update={"key": work.key, "again": True, "attempt": 1}), at=work.now + ONCE_MORE)


def put_off(command: EraseUserData, work: Work, *, waits_for: ThirdParty, reason: str, at: datetime) -> None:
    """Have the process say who is waited for, and try again.

    Args:
        command: what could not be done.
        work: of it.
        waits_for: who can't be asked.
        reason: why not; nothing of the person is in it.
        at: when it is tried again.
    """
    log.warning("erasure waits", process=command.process_id, waits_for=waits_for, reason=reason)
    work.publish(
        NoteErasureWait(
            key=command.process_id,
            process_id=command.process_id,
            holder=_holder(command),
            waits_for=waits_for,
            reason=reason,
        )
    )
    # The second look is nobody's to order but its own.
    if command.again or command.attempt <= OWN_TRIES:
        work.publish(command.model_copy(update={"key": work.key, "attempt": command.attempt + 1}), at=at)


def _erase(holding: Holding, document: Document, work: Work) -> None:
    version = document.get("version")
    stays = None if holding.erased is None else holding.erased(document)
    if stays is None:
        work.delete(holding.collection, document["_id"], version=version)
    elif version is not None:
        work.replace(holding.collection, stays, version=version)
    else:
        # Without a version it is never changed by others: what stays of it takes its place.
        work.delete(holding.collection, document["_id"], version=None)
        work.insert(holding.collection, stays)


def _holder(command: ExportUserData | EraseUserData) -> ServiceName:
    holder: ServiceName = type(command).service  # type: ignore[assignment]  # the first part of its wire name
    return holder


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, datetime):
        return iso_milliseconds(value)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
