"""What do the handlers of the mailer work with?"""

from __future__ import annotations

from dataclasses import dataclass

from services.mailer.audience import Audience
from services.mailer.models.deliveries import Delivery
from services.mailer.rendering import Letters, Texts
from services.mailer.servers import MailServers
from services.mailer.sms import TextProvider
from services.mailer.store.audience import AudienceMembers
from services.mailer.store.consent_changes import ConsentChanges
from services.mailer.store.consents import Consents
from services.mailer.store.deliveries import Deliveries
from services.mailer.store.looks import LooksOfClients
from services.mailer.store.people import People
from services.mailer.store.suppressions import Suppressions
from services.mailer.unsubscribing import UnsubscribeLinks
from services.mailer.wardrobe import Wardrobe
from shared.messages import Sealed
from shared.personal_data.erasure import ErasedIds
from shared.sealing import Sealer

SERVICE = "mailer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who answers for our mails.

    Attributes:
        address: ASCII; where bounces go, whoever stands in ``From``.
        names_mails: whether each mail has a return address of its own, so that what comes back tells which it was even
            if it shows nothing of it (VERP).
    """

    address: str
    names_mails: bool = False

    @property
    def domain(self) -> str:
        """The right side of the address, and of every Message-ID."""
        return self.address.rpartition("@")[2]

    def return_path(self, order_id: str) -> str:
        """Where a mail comes back to: ``bounces+<order id>@example.com`` (RFC 5233), or the address as it is."""
        if not self.names_mails:
            return self.address
        local, _, domain = self.address.rpartition("@")
        return f"{local}+{order_id}@{domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailer:
    """The stores and adapters of the mailer, built in ``app.py``.

    Attributes:
        deliveries: mails and texts, and their states.
        suppressions: who gets nothing but what they ask for.
        consents: who lets us send what.
        erased: of whom nothing is kept any more, whatever comes late.
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
        sender: who answers for mails.
        unsubscribe_links: what mail programs offer beside a mail.
        sealer: opens what is sealed for the mailer.
    """

    deliveries: Deliveries
    suppressions: Suppressions
    consents: Consents
    erased: ErasedIds
    consent_changes: ConsentChanges
    audience: Audience | None
    audience_members: AudienceMembers
    client_looks: LooksOfClients
    people: People
    wardrobe: Wardrobe
    letters: Letters
    texts: Texts
    smtp: MailServers
    text_provider: TextProvider
    sender: Sender
    unsubscribe_links: UnsubscribeLinks
    sealer: Sealer

    def unseal(self, secret: Sealed) -> str:
        """The plain text of a secret field of a message to the mailer."""
        return self.sealer.unseal_secret(SERVICE, secret)

    def sealed(self, secret: Sealed) -> str:
        """The ciphertext of such a field, to be stored."""
        return secret.ciphertext or self.sealer.seal(SERVICE, secret.plain.encode())

    def recipient_hash(self, recipient: str) -> str:
        """What an address or a number is found by: a keyed hash, under the key that seals now."""
        return self.sealer.keyed_hash("recipient", recipient.lower().encode())

    def recipient_hashes(self, recipient: str) -> list[str]:
        """The same under every key that is held: what is kept for longer may stand under an older one."""
        return self.sealer.keyed_hashes("recipient", recipient.lower().encode())

    def hashes_of(self, delivery: Delivery) -> list[str]:
        """The same of the recipient of a delivery, who was not erased."""
        return self.recipient_hashes(self.sealer.unseal(SERVICE, delivery.recipient).decode())
