"""Which languages does somebody read, as their browser or phone says?"""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 10
"""Languages that are looked at; nobody reads more, and whoever sends more wants to keep us busy."""
_TAG: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")
"""As ``shared.messages.message`` has it."""
_RANGE: Final = re.compile(r"\s*([A-Za-z0-9-]{2,40})\s*(?:;\s*[qQ]\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?")


def accepted(header: str) -> tuple[str, ...]:
    """The language tags of an ``Accept-Language`` header (RFC 9110 section 12.5.4), the dearest first.

    What is no such tag is passed over: it is advice, and never a reason to refuse anything.
    """
    found: list[tuple[float, str]] = []
    for said in header.split(",", MOST)[:MOST]:
        read = _RANGE.fullmatch(said)
        tag = None if read is None else language_tag(read[1])
        if read is not None and tag is not None:
            found.append((float(read[2] or 1), tag))
    # Stable: of those that are as dear the first one said goes first.
    return tuple(tag for weight, tag in sorted(found, key=lambda each: -each[0]) if weight > 0)


def language_tag(text: str) -> str | None:
    """The text, if it is a language tag of the usual kind."""
    return text if _TAG.fullmatch(text) else None
