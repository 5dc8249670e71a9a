"""Where is all that billing holds on a person? In these collections, by the user's id."""

from __future__ import annotations

from shared.mongo import Database, Document
from shared.personal_data.subjects import DataSubject, PersonalDataCollection


class People:
    """What is held on people.

    Attributes:
        handed_over: all of it that means anything to them.
        removed: what an erasure removes. Payments and disputes stay, for the books: what was paid and when, with
            Stripe's ids, and nobody's.
    """

    def __init__(self, database: Database) -> None:
        kept = [PersonalDataCollection(database[name], _by_user, redact=_nobodys) for name in ("payments", "disputes")]
        gone = [PersonalDataCollection(database[name], _by_user) for name in ("provider_mappings", "subscriptions")]
        # Of a trial that is not finished the address is sealed for billing alone; the identifiers are told by auth.
        trials = PersonalDataCollection(database["trials"], _by_user, excluded=frozenset({"email"}))
        self.handed_over = (*gone, trials, *kept)
        # By which their messages took turns; it says nothing but that there was such a user.
        turns = PersonalDataCollection(database["payers"], lambda person: {"_id": {"$eq": person.user_id}})
        self.removed = (*gone, trials, turns, *kept)


def _by_user(person: DataSubject) -> Document:
    return {"userId": {"$eq": person.user_id}}


def _nobodys(document: Document) -> Document:
    return {**document, "userId": None}
