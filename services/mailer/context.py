"""Context of the mailer's handlers: its stores and adapters."""

from __future__ import annotations

from dataclasses import dataclass

from services.mailer.branding.store import BrandingCache, ClientBrandings
from services.mailer.consents.mailchimp import Mailchimp
from services.mailer.consents.store import AudienceMembers, ConsentChanges, Consents
from services.mailer.consents.unsubscribe_links import UnsubscribeLinks
from services.mailer.deliveries.store import Deliveries
from services.mailer.mails.app_links import AppLinks
from services.mailer.personal_data.store import PersonalData
from services.mailer.rendering.renderer import MailRenderer, TextRenderer
from services.mailer.smtp.servers import MailServers
from services.mailer.suppressions.store import Suppressions
from services.mailer.texts.providers import TextProvider
from services.mailer.webhooks.http_client import WebhookClient
from services.mailer.webhooks.store import Endpoints, WebhookDeliveries
from services.mailer.webhooks.wanted_events import WantedEvents
from shared.email_addresses import comparable
from shared.messages import Sealed
from shared.messages.types import trimmed_address
from shared.personal_data.erasure import ErasedIds
from shared.sealing import Sealer

SERVICE = "mailer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Envelope sender of our mails, which receives their bounces, whatever ``From`` is.

    Attributes:
        address: an ASCII address.
        tagged: whether each mail has its own return path (VERP), so that a bounce names its mail even if it quotes
            nothing of it.
    """

    address: str
    tagged: bool = False

    @property
    def domain(self) -> str:
        """The address's domain, which is also that of every Message-ID."""
        return self.address.rpartition("@")[2]

    def return_path(self, order_id: str) -> str:
        """Return path of a mail: ``bounces+<order ID>@example.com`` (RFC 5233) if tagged, else the address."""
        if not self.tagged:
            return self.address
        local, _, domain = self.address.rpartition("@")
        return f"{local}+{order_id}@{domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailer:
    """Stores and adapters of the mailer, built in ``app.py``.

    ``mailchimp`` is None if consents are not synced, ``operators_address`` if operators get no mails.
    """

    deliveries: Deliveries
    suppressions: Suppressions
    consents: Consents
    consent_changes: ConsentChanges
    erased: ErasedIds
    mailchimp: Mailchimp | None
    audience_members: AudienceMembers
    client_brandings: ClientBrandings
    branding_cache: BrandingCache
    personal_data: PersonalData
    mail_renderer: MailRenderer
    text_renderer: TextRenderer
    mail_servers: MailServers
    text_provider: TextProvider
    sender: Sender
    unsubscribe_links: UnsubscribeLinks
    app_links: AppLinks
    webhook_endpoints: Endpoints
    webhook_deliveries: WebhookDeliveries
    webhook_client: WebhookClient
    wanted_events: WantedEvents
    operators_address: str | None
    sealer: Sealer

    def unseal(self, secret: Sealed) -> str:
        """Return the plain text of a sealed field of a message to the mailer."""
        return self.sealer.unseal_secret(SERVICE, secret)

    def sealed(self, secret: Sealed) -> str:
        """Return the ciphertext of a sealed field, to be stored."""
        return secret.ciphertext or self.sealer.seal(SERVICE, secret.plain.encode())

    def recipient_hash(self, recipient: str) -> str:
        """Return the keyed hash of an address or a number, in normal form, under the current sealing key."""
        return self.sealer.keyed_hash("recipient", comparable(recipient).encode())

    def recipient_hashes(self, recipient: str) -> list[str]:
        """Return the keyed hashes of an address or a number under all sealing keys: documents may have older ones.

        Besides that of the normal form, that of the text in lower case: earlier releases stored an international domain
        as it was written.
        """
        forms = dict.fromkeys((comparable(recipient), trimmed_address(recipient).lower()))
        return [hashed for form in forms for hashed in self.sealer.keyed_hashes("recipient", form.encode())]
