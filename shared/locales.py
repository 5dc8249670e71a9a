"""Which language does somebody read? The best of those that there are, by lookup as RFC 4647 section 3.4 has it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

LAST_RESORT: Final = "en"
"""Everything is written in it."""


def best(wanted: Sequence[str | None], there: Collection[str]) -> str:
    """The first language that is there, of those wanted and, after all of these, English.

    Args:
        wanted: language tags (RFC 5646) in any case, the dearest first; None and empty ones are passed over.
        there: language tags in lower case.

    Raises:
        LookupError: not even English is there.
    """
    for tag in (*filter(None, wanted), LAST_RESORT):
        for shorter in _shortened(tag.replace("_", "-").lower()):
            if shorter in there:
                return shorter
    raise LookupError(LAST_RESORT)


def _shortened(tag: str) -> Iterator[str]:
    """``zh-hant-x-a`` and then ``zh-hant``, ``zh``: a single letter that leads others goes with them."""
    parts = tag.split("-")
    while parts:
        yield "-".join(parts)
        parts.pop()
        while parts and len(parts[-1]) == 1:
            parts.pop()
