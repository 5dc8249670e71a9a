"""Mail functions of the gateway and the mailer: unsubscribe tokens, IDs and redaction of server replies."""

from __future__ import annotations

import re
from typing import Final

from shared.sealing import CannotUnseal, Sealer

UNSUBSCRIBE_PATH: Final = "/unsubscribe"
"""Path of the gateway's unsubscribe page: ``/unsubscribe/<token>``."""
LANGUAGE_PARAMETER: Final = "lang"
"""Query parameter with the language of the mail: ``?lang=de``."""
MAX_REPLY_CHARACTERS: Final = 300
"""Length of a redacted mail server's reply."""
_RECEIVER: Final = "unsubscribe"
"""Receiver of unsubscribe tokens; nothing else is sealed for it, so no other ciphertext passes as a token."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9]{1,64}\.[A-Za-z0-9_-]{1,400}={0,2}")
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
