"""Where the mailer keeps what it knows: MongoDB's documents, and nothing that decides."""

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import IndexModel

from services.mailer.store.consents import Consents
from services.mailer.store.deliveries import Deliveries

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    Consents.COLLECTION: Consents.INDEXES,
    Deliveries.COLLECTION: Deliveries.INDEXES,
}
"""What must be there before the first message."""
