"""Where the mailer keeps what it knows: MongoDB's documents, and nothing that decides."""

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import IndexModel

from services.mailer.store.audience import AudienceMembers
from services.mailer.store.consent_changes import ConsentChanges
from services.mailer.store.consents import Consents
from services.mailer.store.deliveries import Deliveries
from services.mailer.store.looks import LooksOfClients
from services.mailer.store.suppressions import Suppressions
from shared.personal_data.erasure import ErasedIds

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    AudienceMembers.COLLECTION: (),
    ConsentChanges.COLLECTION: ConsentChanges.INDEXES,
    Consents.COLLECTION: Consents.INDEXES,
    Deliveries.COLLECTION: Deliveries.INDEXES,
    ErasedIds.COLLECTION: (),
    Suppressions.COLLECTION: Suppressions.INDEXES,
    LooksOfClients.COLLECTION: (),
}
"""What must be there before the first message."""
