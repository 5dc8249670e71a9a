"""Collections in which billing stores personal data, found by user ID."""

from __future__ import annotations

from typing import Final

from services.billing.checkout.store import Checkouts
from services.billing.customers.store import ProviderMappings
from services.billing.disputes.store import Disputes
from services.billing.entitlements.store import EntitlementRows
from services.billing.history.store import BillingHistory
from services.billing.payments.store import Payments
from services.billing.subscriptions.store import Payers, Subscriptions
from services.billing.trials.store import Trials
from services.billing.usage.store import UsageRows
from shared.mongo import Database, Document
from shared.personal_data.subjects import DataSubject, PersonalDataCollection

_ANONYMIZED: Final = (Payments.COLLECTION, Disputes.COLLECTION)
_DELETED: Final = (
    ProviderMappings.COLLECTION,
    Subscriptions.COLLECTION,
    UsageRows.COLLECTION,
    Checkouts.COLLECTION,
    BillingHistory.COLLECTION,
)


class PersonalData:
    """Personal data of billing: what an export contains, and what an erasure removes.

    Payments and disputes stay for the books, without their user: amounts, times and Stripe's IDs.
    """

    def __init__(self, database: Database) -> None:
        anonymized = [PersonalDataCollection(database[name], _by_user, redact=_without_user) for name in _ANONYMIZED]
        deleted = [PersonalDataCollection(database[name], _by_user) for name in _DELETED]
        # The address of an unfinished trial is sealed for billing; auth exports the user's identifiers.
        trials = PersonalDataCollection(database[Trials.COLLECTION], _by_user, excluded=frozenset({"email"}))
        entitlements = PersonalDataCollection(database[EntitlementRows.COLLECTION], _by_id)
        # A row of this collection reveals nothing but the existence of the user, so it is not exported.
        payers = PersonalDataCollection(database[Payers.COLLECTION], _by_id)
        self.exported = (*deleted, trials, entitlements, *anonymized)
        self.erased = (*deleted, trials, entitlements, payers, *anonymized)


def _by_id(subject: DataSubject) -> Document:
    return {"_id": {"$eq": subject.user_id}}


def _by_user(subject: DataSubject) -> Document:
    return {"userId": {"$eq": subject.user_id}}


def _without_user(document: Document) -> Document:
    return {**document, "userId": None}
