"""Search for secrets in what a Nest stores, publishes, exports and responds."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

MIN_CHARACTERS: Final = 6
"""Length of a phone code. Shorter strings occur anywhere by chance."""
CHANCE_DIGITS: Final = 8
"""So many digits occur in longer numbers and in hex digits by chance."""


def contains(text: str | bytes, secret: str) -> bool:
    """Whether a secret is readable in a text, in any encoding.

    Six digits occur by chance in IDs, hashes and times: so few must be a word of their own. The values of metrics are
    decimals of any digits, so search their names and labels instead (``tests.metrics.exported_names``).
    """
    text, raw = text if isinstance(text, bytes) else text.encode(), secret.encode()
    if not secret.isdigit() or len(secret) > CHANCE_DIGITS:
        return any(encoded in text for encoded in encodings(secret))
    as_word = re.search(rb"(?<![0-9A-Za-z])" + raw + rb"(?![0-9A-Za-z])", text)
    return as_word is not None or any(encoded in text for encoded in encodings(secret) if encoded != raw)


def encodings(secret: str) -> Iterator[bytes]:
    """Encodings of a secret: plain, percent-encoded, JSON, hex, and base64 at any offset of a longer text."""
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for before in range(3):
        # The first and last characters of the encoded secret depend on the text around it.
        encoded = base64.b64encode(b"\0" * before + raw)
        inner = encoded[4 if before else 0 :].rstrip(b"=")[:-1]
        if len(inner) > MIN_CHARACTERS:
            yield inner
            yield inner.replace(b"+", b"-").replace(b"/", b"_")
