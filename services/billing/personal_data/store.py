"""Collections in which billing stores personal data, found by user id."""

from __future__ import annotations

from services.billing.customers.store import ProviderMappings
from services.billing.disputes.store import Disputes
from services.billing.payments.store import Payments
from services.billing.subscriptions.store import Payers, Subscriptions
from services.billing.trials.store import Trials
from shared.mongo import Database, Document
from shared.personal_data.subjects import DataSubject, PersonalDataCollection


class People:
    """Personal data of billing.

    Attributes:
        handed_over: what an export contains.
        removed: what an erasure removes. Payments and disputes stay for the books, without the user: when was paid
            how much, with Stripe's ids.
    """

    def __init__(self, database: Database) -> None:
        anonymised = [PersonalDataCollection(database[name], _by_user, redact=_without_user) for name in _ANONYMISED]
        deleted = [PersonalDataCollection(database[name], _by_user) for name in _DELETED]
        # The address of an unfinished trial is sealed for billing; auth exports the user's identifiers.
        trials = PersonalDataCollection(database[Trials.COLLECTION], _by_user, excluded=frozenset({"email"}))
        # A row of this collection reveals nothing but the existence of the user, so it is not exported.
        turns = PersonalDataCollection(database[Payers.COLLECTION], lambda subject: {"_id": {"$eq": subject.user_id}})
        self.handed_over = (*deleted, trials, *anonymised)
        self.removed = (*deleted, trials, turns, *anonymised)


_ANONYMISED = (Payments.COLLECTION, Disputes.COLLECTION)
_DELETED = (ProviderMappings.COLLECTION, Subscriptions.COLLECTION)


def _by_user(subject: DataSubject) -> Document:
    return {"userId": {"$eq": subject.user_id}}


def _without_user(document: Document) -> Document:
    return {**document, "userId": None}
