"""Where is all that news holds on a person? In these collections, by the user's id."""

from __future__ import annotations

from services.news.store import Dismissals, Subscriptions
from shared.mongo import Database, Document
from shared.personal_data.subjects import DataSubject, PersonalDataCollection


def holdings(database: Database) -> tuple[PersonalDataCollection, ...]:
    """What is held on people: what they put away, and how they subscribe."""
    return tuple(
        PersonalDataCollection(database[name], _by_user) for name in (Dismissals.COLLECTION, Subscriptions.COLLECTION)
    )


def _by_user(person: DataSubject) -> Document:
    return {"userId": {"$eq": person.user_id}}
