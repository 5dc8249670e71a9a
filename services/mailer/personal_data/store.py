"""Collections of the mailer that contain personal data, and the queries that find a person's documents."""

from __future__ import annotations

from services.mailer.consents.store import AudienceMembers, ConsentChanges, Consents
from services.mailer.deliveries.store import Deliveries
from services.mailer.suppressions.store import Suppressions
from services.mailer.webhooks.store import WebhookDeliveries
from shared.mongo import Database, Document
from shared.personal_data.subjects import DataSubject, PersonalDataCollection
from shared.sealing import Sealer


class PersonalData:
    """Collections with personal data: ``exported`` in an export, ``erased`` in an erasure.

    Suppressions are not erased: each is the keyed hash of an address that bounced or complained, and prevents further
    mail to it.
    """

    def __init__(self, database: Database, sealer: Sealer) -> None:
        def recipient_hashes(person: DataSubject) -> list[str]:
            recipients = (*person.emails, *person.phones)
            return [hashed for each in recipients for hashed in sealer.keyed_hashes("recipient", each.lower().encode())]

        consents = [
            PersonalDataCollection(database[Consents.COLLECTION], _by_user),
            PersonalDataCollection(database[ConsentChanges.COLLECTION], _by_user),
            PersonalDataCollection(
                database[AudienceMembers.COLLECTION], lambda person: {"_id": {"$eq": person.user_id}}
            ),
        ]
        deliveries = PersonalDataCollection(
            database[Deliveries.COLLECTION],
            lambda person: {"recipientHash": {"$in": recipient_hashes(person)}},
            excluded=frozenset({"recipientHash"}),
            to_export=lambda delivery: {
                **delivery,
                "recipient": sealer.unseal("mailer", delivery["recipient"]).decode(),
            },
            redact=_anonymised,
        )
        suppressions = PersonalDataCollection(
            database[Suppressions.COLLECTION],
            lambda person: {"_id": {"$in": recipient_hashes(person)}},
            excluded=frozenset({"_id"}),
        )
        webhooks = PersonalDataCollection(
            database[WebhookDeliveries.COLLECTION],
            _by_user,
            excluded=frozenset({"subject", "position"}),
            to_export=lambda webhook: {**webhook, "body": sealer.unseal("mailer", webhook["body"]).decode()},
            # The only event that an app still gets about the person names nothing but the user's ID.
            erasure_query=lambda person: {**_by_user(person), "type": {"$ne": "user.erased"}},
        )
        self.exported = (*consents, deliveries, suppressions, webhooks)
        self.erased = (*consents, deliveries, webhooks)


def _by_user(person: DataSubject) -> Document:
    return {"userId": {"$eq": person.user_id}}


def _anonymised(delivery: Document) -> Document:
    """Return a delivery without its recipient: it proves only that something was sent.

    A queued delivery becomes failed, so that its retry ends. The server's answer is removed too, since it may quote the
    address.
    """
    state = "failed" if delivery["state"] == "queued" else delivery["state"]
    return {**delivery, "state": state, "recipient": "", "recipientHash": "", "reason": None, "providerId": None}
