"""Whose mail is it, and what does it look like? What was said of a client's mails, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from email.headerregistry import Address
from functools import lru_cache
from typing import Self

from services.mailer.models.colours import Palette, palette
from shared.messages.mailer.branding import ClientLooks, ClientLooksView, LooksView


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
        return _sender(self.sender_name, self.sender_address)


@dataclass(frozen=True, slots=True, kw_only=True)
class LooksOfClient:
    """How the mails and texts of one client appear.

    Attributes:
        client_id: whose they are; one client has one.
        chosen: what was said; the rest is the deployment's.
        version: guards the next write.
    """

    client_id: str
    chosen: ClientLooks
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def choose(cls, client_id: str, chosen: ClientLooks, *, at: datetime) -> Self:
        """What is said of a client for the first time."""
        return cls(client_id=client_id, chosen=chosen, created_at=at, updated_at=at)

    def choose_anew(self, chosen: ClientLooks, *, at: datetime) -> Self:
        """The same with something else said of it."""
        return replace(self, chosen=chosen, updated_at=at)


def over(own: Looks, chosen: ClientLooks) -> Looks:
    """A deployment's own looks, with those in their place that were chosen for a client."""
    given = {name: value for name, value in chosen if value is not None}
    if "sender_address" in given and "sender_name" not in given:
        # A name that belongs to another address would mislead.
        given["sender_name"] = given.get("product_name", own.product_name)
    return replace(own, **given)


def view(client_id: str, kept: LooksOfClient | None, own: Looks) -> ClientLooksView:
    """How a client's mails appear, as operators read it."""
    chosen = ClientLooks() if kept is None else kept.chosen
    looks = over(own, chosen)
    return ClientLooksView(
        client_id=client_id,
        chosen=chosen,
        shown=LooksView(
            product_name=looks.product_name,
            sender=looks.sender,
            support_address=looks.support_address,
            accent_colour=looks.accent_colour,
            button_text_colour=looks.palette.on_accent,
            link_colour=looks.palette.link,
            background_colour=looks.background_colour,
            logo_url=looks.logo_url,
            locale=looks.locale,
        ),
        updated_at=None if kept is None else kept.updated_at,
    )


@lru_cache(maxsize=1024)
def _sender(name: str | None, address: str) -> str:
    """To write one takes the library longer than it takes to write the rest of a mail."""
    return address if name is None else str(Address(name, addr_spec=address))
