"""Branding: name, sender, colours and language of a client's mails and texts."""

from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from shared.messages.mailer.mails import Template
from shared.messages.mailer.texts import TextTemplate
from shared.messages.message import Command, Part, Query, Reply
from shared.messages.types import ClientId, Locale, Moment

Line = Annotated[
    str,
    Field(
        pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$", max_length=100, json_schema_extra={"pattern": r"^[^\x00-\x1f\x7f-\x9f]+$"}
    ),
]
r"""A string without line breaks and control characters.

The published pattern is a superset that all regular-expression dialects understand; ``\p`` is not portable.
"""
_ATOM: Final = r"[A-Za-z0-9_%+-]{1,32}"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
Address = Annotated[str, Field(pattern=rf"^{_ATOM}(?:\.{_ATOM}){{0,3}}@{_LABEL}(?:\.{_LABEL}){{1,8}}$", max_length=720)]
"""An email address of the simple form that senders have."""
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$", max_length=7)]
ImageUrl = Annotated[
    str,
    Field(
        pattern=r"^https?://[^\s\p{C}\"'<>\\]+$",
        max_length=2048,
        json_schema_extra={"pattern": r"""^https?://[^\s\x00-\x1f\x7f-\x9f"'<>\\]+$"""},
    ),
]
"""URL of an image; the published pattern is a superset, as for ``Line``."""


class ClientLooks(Part):
    """Branding of a client's mails and texts. Null fields have the value of the deployment's settings."""

    product_name: Line | None = None
    """Name of the product, without line breaks and control characters."""
    sender_name: Line | None = None
    """Name of the sender, without line breaks and control characters. If both ``sender_name`` and ``sender_address``
    are omitted, the deployment's sender is used."""
    sender_address: Address | None = None
    """Email address of the sender. The mail server must be allowed to send for its domain (SPF, DKIM, DMARC)."""
    support_address: Address | None = None
    """Email address for questions."""
    accent_colour: Colour | None = None
    """Colour of buttons, ``#rrggbb``. Their text is white or dark, whichever is readable."""
    background_colour: Colour | None = None
    """Colour behind the content in light mode, ``#rrggbb``."""
    logo_url: ImageUrl | None = None
    """URL of an image that replaces the product's name in mails, shown 32 pixels high."""
    locale: Locale | None = None
    """Language for recipients without a known language, for example ``de-AT`` (RFC 5646)."""

    @model_validator(mode="after")
    def _logo_url_has_host(self) -> Self:
        if self.logo_url is not None and not urlsplit(self.logo_url).hostname:
            raise ValueError("logo_url has no host")
        return self


class LooksView(Reply):
    """Branding in effect."""

    product_name: str
    """Name of the product."""
    sender: str
    """``From`` header of mails."""
    support_address: str
    """Email address for questions."""
    accent_colour: str
    """Colour of buttons, ``#rrggbb``."""
    button_text_colour: str
    """Colour of text on buttons, with a contrast of WCAG AA, ``#rrggbb``."""
    link_colour: str
    """The accent colour, darkened to be readable on white, ``#rrggbb``."""
    background_colour: str
    """Colour behind the content in light mode, ``#rrggbb``."""
    logo_url: str | None
    """URL of the image in place of the product's name; null if there is none."""
    locale: str
    """Language for recipients without a known language."""


class ClientLooksView(Reply):
    """Branding of a client's mails and texts."""

    client_id: str
    """ID of the client."""
    chosen: ClientLooks
    """The client's own values."""
    shown: LooksView
    """The values in effect: the client's own, else the deployment's."""
    updated_at: Moment | None
    """When the client's branding last changed; null if never."""


# The ordering key is the client's ID.
class RecordClientLooks(Command, wire="mailer.record-client-looks", reply=ClientLooksView):
    """Replace the branding of an existing client. Sent by auth."""

    client_id: str
    looks: ClientLooks


class GetClientLooks(Query, wire="mailer.get-client-looks", reply=ClientLooksView):
    """Get the branding of a client's mails and texts.

    A client without values of its own, or an unknown client, has the deployment's.
    """

    client_id: ClientId


MAX_PREVIEW: Final = 500_000
"""Maximum length of a previewed document, in characters. Nest's own templates have some 20,000."""


class MailPreviewView(Reply):
    """A mail or text with sample values in place of a person's."""

    sender: str
    """``From`` header of the mail; empty for a text."""
    subject: str
    """Subject of the mail; empty for a text."""
    text: Annotated[str, Field(max_length=MAX_PREVIEW)]
    """The mail's plain text, or the text."""
    html: Annotated[str, Field(max_length=MAX_PREVIEW)]
    """The mail's HTML document; empty for a text."""
    locale: str
    """Language in which it was rendered: the requested one, else the branding's, else English."""


class PreviewMail(Query, wire="mailer.preview-mail", reply=MailPreviewView):
    """Render a mail or text with sample values. Sends nothing.

    Uses the templates of the running mailer, so it shows an operator's own templates too.
    """

    template: Literal[Template, TextTemplate]
    """Name of the mail or text."""
    client_id: ClientId | None = None
    """Client whose branding is used; null for the deployment's."""
    looks: ClientLooks | None = None
    """Branding in place of that of the client, to see it before it is set; null fields have the value of the
    deployment's settings."""
    locale: Locale | None = None
    """Language of the mail, for example ``de``; null for that of the branding."""
