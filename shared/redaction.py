"""How may the words of a mail server be kept? Printable, bounded, and without addresses."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 300
_ADDRESS: Final = re.compile(r"[^\s<>()\[\],;:\"]+@[^\s<>()\[\],;:\"]+")
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


def scrubbed(said: str, *, address: str = "") -> str:
    """At most ``LONGEST`` characters of printable ASCII, with nobody's address in them.

    Args:
        said: whatever a server said.
        address: one that is known to stand in it perhaps, however oddly it is written.
    """
    # What follows looks for patterns: not through a megabyte.
    said = said[: 10 * LONGEST]
    if "@" in said:
        if address:
            said = re.sub(re.escape(address), "<recipient>", said, flags=re.IGNORECASE)
        said = _ADDRESS.sub("<address>", said)
    return _UNPRINTABLE.sub("?", said)[:LONGEST]
