"""Mail functions of the gateway and the mailer: tokens of links, IDs and redaction of server replies."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Final

from shared.sealing import CannotUnseal, Sealer

OPEN_PATH: Final = "/open"
"""Path of the gateway's page that opens an app: ``/open/<token>``."""
PRESS_PATH: Final = "/continue"
"""Path of the gateway's page whose button leads on to a magic link: ``/continue/<token>``."""
RESET_PATH: Final = "/reset"
"""Path of the gateway's page that sets a new password: ``/reset/<code>``."""
CONFIRM_PATH: Final = "/confirm"
"""Path of the gateway's page that proves an address: ``/confirm/<code>``."""
UNSUBSCRIBE_PATH: Final = "/unsubscribe"
"""Path of the gateway's unsubscribe page: ``/unsubscribe/<token>``."""
LANGUAGE_PARAMETER: Final = "lang"
"""Query parameter with the language of the mail: ``?lang=de``."""
MAX_REPLY_CHARACTERS: Final = 300
"""Length of a redacted mail server's reply."""
_RECEIVER: Final = "unsubscribe"
"""Receiver of unsubscribe tokens; nothing else is sealed for it, so no other ciphertext passes as a token."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9]{1,64}\.[A-Za-z0-9_-]{1,400}={0,2}")
_APP_LINK_RECEIVER: Final = "app link"
"""Receiver of the tokens of links to apps."""
_PRESS_LINK_RECEIVER: Final = "press link"
"""Receiver of the tokens of links behind a button."""
_APP_LINK_TOKEN: Final = re.compile(r"[A-Za-z0-9]{1,64}\.[A-Za-z0-9_-]{1,16000}={0,2}")
_PROVIDER_ID: Final = re.compile(r"(?=[^@]*[0-9])([A-Za-z0-9][A-Za-z0-9._=+-]{15,127})(?:@[^@\s]+)?")
_ADDRESS: Final = re.compile(r"[^\s<>()\[\],;:\"]+@[^\s<>()\[\],;:\"]+")
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


def unsubscribe_token(sealer: Sealer, user_id: str) -> str:
    """Return a URL-safe token that unsubscribes a user.

    It contains the sealed user ID, so nobody else can read or forge it. It does not expire: it is valid for as long as
    the sealing key is held.
    """
    return sealer.seal(_RECEIVER, user_id.encode())


def user_of_token(sealer: Sealer, token: str) -> str | None:
    """Return the user ID in an unsubscribe token; None if the token is invalid."""
    if not _TOKEN.fullmatch(token):
        return None
    try:
        return sealer.unseal(_RECEIVER, token).decode()
    except CannotUnseal:
        return None


@dataclass(frozen=True, slots=True)
class AppLink:
    """A link with the scheme of an app, and the product's name to show on its button."""

    link: str
    product_name: str


def app_link_token(sealer: Sealer, link: str, *, product_name: str) -> str:
    """Return a URL-safe token of a link to an app, which only a holder of the sealing key can make or read."""
    return sealer.seal(_APP_LINK_RECEIVER, json.dumps([link, product_name]).encode())


def app_link_of_token(sealer: Sealer, token: str) -> AppLink | None:
    """Return the link in a token of ``app_link_token``; None if the token is invalid."""
    if not _APP_LINK_TOKEN.fullmatch(token):
        return None
    try:
        return AppLink(*json.loads(sealer.unseal(_APP_LINK_RECEIVER, token)))
    except CannotUnseal:
        return None


@dataclass(frozen=True, slots=True)
class PressLink:
    """A magic link behind a button, and the branding of the page with the button.

    Attributes:
        link: the URL that the button leads on to.
        product_name: the product's name.
        accent, on_accent: colours ``#rrggbb`` of the button and of its label.
        background: colour ``#rrggbb`` around the content in light mode.
        logo_url: URL of an image in place of the product's name; None if there is none.
    """

    link: str
    product_name: str
    accent: str
    on_accent: str
    background: str
    logo_url: str | None = None


def press_link_token(sealer: Sealer, press_link: PressLink) -> str:
    """Return a URL-safe token of a link behind a button, which only a holder of the sealing key can make or read."""
    return sealer.seal(_PRESS_LINK_RECEIVER, json.dumps(asdict(press_link)).encode())


def press_link_of_token(sealer: Sealer, token: str) -> PressLink | None:
    """Return the link in a token of ``press_link_token``; None if the token is invalid."""
    if not _APP_LINK_TOKEN.fullmatch(token):
        return None
    try:
        return PressLink(**json.loads(sealer.unseal(_PRESS_LINK_RECEIVER, token)))
    except CannotUnseal:
        return None


def provider_id_in(text: str) -> str | None:
    """Return the ID in a Message-ID, or in a word of a mail server's reply; None if it looks like none.

    An ID has 16 to 128 characters with a digit. A domain after it is left out: Amazon SES replies with
    ``0100018f…-000000`` and sends the mail as ``<0100018f…-000000@email.amazonses.com>``.
    """
    match = _PROVIDER_ID.fullmatch(text.strip("<>[](){}\"',;:. "))
    return None if match is None else match.group(1)


def redact_addresses(reply: str, *, address: str = "") -> str:
    """Return at most ``MAX_REPLY_CHARACTERS`` of a mail server's reply, in printable ASCII and without addresses.

    ``address`` is the recipient's, which the patterns may miss if it has an unusual form.
    """
    # Bounds the time of the regular expressions: a server may reply with a megabyte.
    reply = reply[: 10 * MAX_REPLY_CHARACTERS]
    if "@" in reply:
        if address:
            reply = re.sub(re.escape(address), "<recipient>", reply, flags=re.IGNORECASE)
        reply = _ADDRESS.sub("<address>", reply)
    return _UNPRINTABLE.sub("?", reply)[:MAX_REPLY_CHARACTERS]
