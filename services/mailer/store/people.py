"""Where is all that the mailer holds on a person? In these collections, by fields that find it."""

from __future__ import annotations

from services.mailer.store.consents import Consents
from services.mailer.store.deliveries import Deliveries
from services.mailer.store.suppressions import Suppressions
from shared.mongo import Database, Document
from shared.personal_data.subjects import DataSubject, PersonalDataCollection
from shared.sealing import Sealer


class People:
    """What is held on people.

    Args:
        database: the mailer's.
        sealer: makes the hashes that addresses and numbers are found by, and opens the recipients of deliveries.

    Attributes:
        handed_over: all of it.
        removed: what an erasure removes. A suppression stays: it is the keyed hash of an address that came back or
            whose reader called our mail spam, and it keeps us from writing there again.
    """

    def __init__(self, database: Database, sealer: Sealer) -> None:
        def recipients(person: DataSubject) -> list[str]:
            known = (*person.emails, *person.phones)
            return [hashed for each in known for hashed in sealer.keyed_hashes("recipient", each.lower().encode())]

        consents = [
            PersonalDataCollection(database[Consents.COLLECTION], _by_user),
            PersonalDataCollection(database["marketing_consent_changes"], _by_user),
            PersonalDataCollection(database["audience_members"], lambda person: {"_id": {"$eq": person.user_id}}),
        ]
        deliveries = PersonalDataCollection(
            database[Deliveries.COLLECTION],
            lambda person: {"recipientHash": {"$in": recipients(person)}},
            excluded=frozenset({"recipientHash"}),
            to_export=lambda delivery: {
                **delivery,
                "recipient": sealer.unseal("mailer", delivery["recipient"]).decode(),
            },
            redact=_nobodys,
        )
        suppressions = PersonalDataCollection(
            database[Suppressions.COLLECTION],
            lambda person: {"_id": {"$in": recipients(person)}},
            excluded=frozenset({"_id"}),
        )
        self.handed_over = (*consents, deliveries, suppressions)
        self.removed = (*consents, deliveries)


def _by_user(person: DataSubject) -> Document:
    return {"userId": {"$eq": person.user_id}}


def _nobodys(delivery: Document) -> Document:
    """What stays of a delivery: that something was sent. What waits for another try finds it settled, and ends.

    What the server said goes too: it may have quoted the address.
    """
    state = "failed" if delivery["state"] == "queued" else delivery["state"]
    return {**delivery, "state": state, "recipient": "", "recipientHash": "", "reason": None}
