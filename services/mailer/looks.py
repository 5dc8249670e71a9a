"""Whose mail is it, and what does it look like?"""

from __future__ import annotations

from dataclasses import dataclass
from email.headerregistry import Address

from services.mailer.colours import Palette, palette


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What a mail or a text wears.

    Attributes:
        product_name: how the product is called.
        sender_address: ASCII; where mails come from.
        sender_name: what stands before it; None: the address alone.
        support_address: where people may write to.
        accent_colour: ``#rrggbb``, of the button; its words are white or dark, whichever can be read.
        background_colour: ``#rrggbb``, behind the card that holds the words; dark mode has its own.
        logo_url: an image 32 pixels high; None: the name is written, and nothing is fetched from anywhere.
        locale: the language of people who have not said which they read.
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
        """The colours that follow, all of them legible."""
        return palette(self.accent_colour, self.background_colour)

    @property
    def sender(self) -> str:
        """The ``From`` header's value (RFC 5322 section 3.4)."""
        if self.sender_name is None:
            return self.sender_address
        return str(Address(self.sender_name, addr_spec=self.sender_address))
