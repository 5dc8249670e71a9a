"""Users who registered after a backup, recovered from auth's events on Kafka with the IDs that they had.

Their logins can't be handled again: the codes in the mails are not in the restored database. Without this step they
would get new IDs at the next login, and other services and Stripe would hold data of IDs that nobody has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pymongo.errors import DuplicateKeyError

from services.auth.users.models import Identifier, User
from services.auth.users.store import Identifiers, Users
from services.operator.consumer_groups import opened_group
from services.operator.databases import opened_database
from services.operator.offsets import Saved, read_file
from shared.bus.record_macs import RecordMacs
from shared.documents import document_of
from shared.messages.auth.users import IdentifierVerified
from shared.mongo import Database, ensure_indexes, indexes_of
from shared.sealing import Sealer

READER: Final = "billing"
"""The process that may read auth's events; auth itself may only write them."""


@dataclass(slots=True)
class Recovered:
    """Numbers of events that were read, of users and identifiers that were added, and of addresses that others have."""

    events: int = 0
    users: int = 0
    identifiers: int = 0
    taken: int = 0


async def recover_users(file: Path, bootstrap: str, prefix: str) -> Recovered:
    """Add the users and identifiers that auth has reported as verified since a backup. May be repeated.

    Args:
        file: offsets of the backup.
        bootstrap: ``host:port`` of Kafka's brokers.
        prefix: prefix of the topics.

    Raises:
        CommandError: the file or a setting is wrong, or Kafka or MongoDB failed.
    """
    saved, outcome = read_file(file).get(READER, {}), Recovered()
    async with opened_database("auth") as (own, keys):
        macs = RecordMacs(Sealer(keys), prefix=prefix)
        await ensure_indexes(own, indexes_of(Users, Identifiers))
        for event in await _verified(bootstrap, prefix, saved, macs):
            outcome.events += 1
            await _recover(own, event, outcome)
    return outcome


async def _verified(bootstrap: str, prefix: str, saved: Saved, macs: RecordMacs) -> list[IdentifierVerified]:
    """Return the authentic events since the saved offsets, in the order of their times."""
    topic = IdentifierVerified.topic
    async with opened_group(bootstrap, READER, prefix) as group:
        records = await group.records_since(topic, saved)
    found = [_event_of(record) for record in records if macs.problem(topic, record) is None]
    return sorted((event for event in found if event is not None), key=lambda event: event.at)


def _event_of(record: Any) -> IdentifierVerified | None:
    if dict(record.headers).get("type") != IdentifierVerified.wire.encode():
        return None
    try:
        return IdentifierVerified.model_validate_json(record.value)
    except ValidationError:
        return None


async def _recover(own: Database, event: IdentifierVerified, outcome: Recovered) -> None:
    users, identifiers = own[Users.COLLECTION], own[Identifiers.COLLECTION]
    known = await identifiers.find_one({"_id": event.identifier_id})
    if known is not None:
        verified = {"$set": {"verifiedAt": event.at, "updatedAt": event.at}, "$inc": {"version": 1}}
        await identifiers.update_one({"_id": event.identifier_id, "verifiedAt": None}, verified)
        return
    identifier = Identifier(
        id=event.identifier_id,
        user_id=event.user_id,
        identifier_type=event.identifier_type,
        identifier_value=event.identifier_value,
        created_at=event.at,
        updated_at=event.at,
        verified_at=event.at,
    )
    try:
        await identifiers.insert_one(document_of(identifier))
    except DuplicateKeyError:
        outcome.taken += 1
        return
    outcome.identifiers += 1
    try:
        await users.insert_one(document_of(User(id=event.user_id, created_at=event.at)))
        outcome.users += 1
    except DuplicateKeyError:
        # The backup has the user, and the identifier is a later one.
        return
