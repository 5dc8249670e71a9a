"""What mailer is ordered and asked about looks: how the mails and texts of a client appear."""

from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from shared.messages.message import Command, Locale, Moment, Part, Query, Reply

Line = Annotated[str, Field(pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$", max_length=100)]
"""Text without line breaks and control characters."""
_ATOM: Final = r"[A-Za-z0-9_%+-]{1,32}"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
Address = Annotated[str, Field(pattern=rf"^{_ATOM}(?:\.{_ATOM}){{0,3}}@{_LABEL}(?:\.{_LABEL}){{1,8}}$")]
"""A mail address of the kind that senders have."""
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
"""``#rrggbb``."""
ImageUrl = Annotated[str, Field(pattern=r"^https?://[^\s\p{C}\"'<>\\]+$", max_length=2048)]
"""A picture on the web."""


class ClientLooks(Part):
    """How mails and texts of a client appear; what is left out, or null, is as the deployment's settings say."""

    product_name: Line | None = None
    """How they call the product."""
    sender_name: Line | None = None
    """The name that mails come from; left out, and without a ``sender_address``, the deployment's sender stands."""
    sender_address: Address | None = None
    """The address that mails come from; the mail server must be allowed to send for it (SPF, DKIM, DMARC)."""
    support_address: Address | None = None
    """Where a person who has a question may write to."""
    accent_colour: Colour | None = None
    """Of buttons; their words are white or dark, whichever can be read."""
    background_colour: Colour | None = None
    """Behind the card that holds the words, in light mode."""
    logo_url: ImageUrl | None = None
    """An image, shown 32 pixels high in place of the product's name."""
    locale: Locale | None = None
    """The language of people who have not said which they read."""

    @model_validator(mode="after")
    def _whole_url(self) -> Self:
        if self.logo_url is not None and not urlsplit(self.logo_url).hostname:
            raise ValueError("logo_url names no host")
        return self


class LooksView(Reply):
    """What mails and texts wear, all of it."""

    product_name: str
    sender: str
    """The ``From`` header."""
    support_address: str
    accent_colour: str
    button_text_colour: str
    """Chosen so that it can be read on the accent colour (WCAG AA)."""
    link_colour: str
    """The accent colour where it can be read on white."""
    background_colour: str
    logo_url: str | None
    locale: str


class ClientLooksView(Reply):
    """How a client's mails and texts appear."""

    client_id: str
    chosen: ClientLooks
    """What was said of this client."""
    shown: LooksView
    """What follows, with the deployment's settings where nothing was said."""
    updated_at: Moment | None
    """Null before anything was said."""


class RecordClientLooks(Command, wire="mailer.record-client-looks", reply=ClientLooksView):
    """Say anew how the mails and texts of an existing client appear. ``key`` is its id."""

    client_id: str
    looks: ClientLooks


class GetClientLooks(Query, wire="mailer.get-client-looks", reply=ClientLooksView):
    """How the mails and texts of a client appear.

    Of a client that nobody has said anything of, the deployment's own.
    """

    client_id: Annotated[str, Field(min_length=1)]
