"""Branding of mails and texts: product name, sender, colours, logo and default language."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from email.headerregistry import Address
from functools import lru_cache

from services.mailer.branding.colours import Palette, palette
from shared.messages.mailer.branding import ClientLooks, ClientLooksView, LooksView


@dataclass(frozen=True, slots=True, kw_only=True)
class Branding:
    """Branding of a mail or a text.

    Attributes:
        product_name: the product's name.
        sender_address: the address in ``From``, in ASCII.
        sender_name: the display name in ``From``; None for the address alone.
        support_address: the address that people may write to.
        accent_colour: ``#rrggbb``; the colour of the button. Its label is white or dark, whichever is legible.
        background_colour: ``#rrggbb``; the colour behind the card that holds the content. Dark mode has its own.
        logo_url: an image, shown 32 pixels high. None shows the product's name, and the mail loads nothing.
        locale: the language for people who have not chosen one.
    """

    product_name: str
    sender_address: str
    support_address: str
    sender_name: str | None = None
    accent_colour: str = "#2f57d6"
    background_colour: str = "#f3f4f6"
    logo_url: str | None = None
    locale: str = "en"

    @property
    def palette(self) -> Palette:
        """All colours of a mail, derived from the accent and the background colour; every text is legible."""
        return palette(self.accent_colour, self.background_colour)

    @property
    def sender(self) -> str:
        """Value of the ``From`` header (RFC 5322 section 3.4)."""
        return _mailbox(self.sender_name, self.sender_address)

    def overridden_by(self, chosen: ClientLooks) -> Branding:
        """Return this branding with the fields replaced that were set for a client."""
        fields = {name: value for name, value in chosen if value is not None}
        if "sender_address" in fields and "sender_name" not in fields:
            # The display name of another address would mislead.
            fields["sender_name"] = fields.get("product_name", self.product_name)
        return replace(self, **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientBranding:
    """Branding that was set for one client, under the client's ID.

    The fields that ``chosen`` lacks come from the deployment's settings.
    """

    id: str
    chosen: ClientLooks
    created_at: datetime
    updated_at: datetime
    version: int = 1


def branding_view(client_id: str, stored: ClientBranding | None, default: Branding) -> ClientLooksView:
    """Return a client's branding as operators read it; ``default`` is the deployment's."""
    chosen = ClientLooks() if stored is None else stored.chosen
    branding = default.overridden_by(chosen)
    return ClientLooksView(
        client_id=client_id,
        chosen=chosen,
        shown=LooksView(
            product_name=branding.product_name,
            sender=branding.sender,
            support_address=branding.support_address,
            accent_colour=branding.accent_colour,
            button_text_colour=branding.palette.on_accent,
            link_colour=branding.palette.link,
            background_colour=branding.background_colour,
            logo_url=branding.logo_url,
            locale=branding.locale,
        ),
        updated_at=None if stored is None else stored.updated_at,
    )


# The library takes longer to format one address than the rest of a mail takes.
@lru_cache(maxsize=1024)
def _mailbox(name: str | None, address: str) -> str:
    return address if name is None else str(Address(name, addr_spec=address))
