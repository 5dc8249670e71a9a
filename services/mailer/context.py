"""What do the handlers of the mailer work with?"""

from __future__ import annotations

from dataclasses import dataclass

from services.mailer.rendering import Letters, Texts
from services.mailer.sms import TextProvider
from services.mailer.smtp import Smtp
from services.mailer.store.consents import Consents
from services.mailer.store.deliveries import Deliveries
from services.mailer.store.looks import LooksOfClients
from services.mailer.store.people import People
from services.mailer.store.suppressions import Suppressions
from services.mailer.unsubscribing import UnsubscribeLinks
from services.mailer.wardrobe import Wardrobe
from shared.messages import Sealed
from shared.sealed import Sealer

SERVICE = "mailer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who our mails come from.

    Attributes:
        address: ASCII; where bounces go.
        header: the ``From`` header, the address with a name.
    """

    address: str
    header: str

    @property
    def domain(self) -> str:
        """The right side of the address, and of every Message-ID."""
        return self.address.rpartition("@")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailer:
    """The stores and adapters of the mailer, built in ``app.py``.

    Attributes:
        deliveries: mails and texts, and their states.
        consents: who lets us send what.
        consent_changes: what they said, each time.
        audience: whoever else must know it; None: nobody.
        audience_members: what they were told.
        client_looks: what was said of how clients' mails appear.
        people: all that is held on a person, in one place.
        wardrobe: what their mails wear.
        letters: writes what mails say.
        texts: writes what texts say.
        smtp: hands mails over.
        text_provider: hands texts over.
        sender: who mails come from.
        sealer: opens what is sealed for the mailer.
    """

    deliveries: Deliveries
    consents: Consents
    consent_changes: ConsentChanges
    audience: Audience | None
    audience_members: AudienceMembers
    client_looks: LooksOfClients
    people: People
    wardrobe: Wardrobe
    letters: Letters
    texts: Texts
    smtp: Smtp
    text_provider: TextProvider
    sender: Sender
    sealer: Sealer

    def reveal(self, secret: Sealed) -> str:
        """The plain text of a secret field of a message to the mailer."""
        return self.sealer.reveal(SERVICE, secret)

    def sealed(self, secret: Sealed) -> str:
        """The ciphertext of such a field, to be stored."""
        return secret.ciphertext or self.sealer.seal(SERVICE, secret.plain.encode())
