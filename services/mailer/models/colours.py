"""Can it be read? Contrast as WCAG 2 counts it, and the colours of a mail that follow from those somebody chose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

LEGIBLE: Final = 4.5
"""Text against what is behind it (WCAG 2.2, success criterion 1.4.3, level AA)."""
VISIBLE: Final = 3.0
"""A mark that is no text (success criterion 1.4.11)."""
WHITE: Final = "#ffffff"
BLACK: Final = "#000000"
INK: Final = "#16181d"
PALE_INK: Final = "#5d6470"
CARD: Final = WHITE
"""What the words of a mail stand on."""
DARK_CARD: Final = "#1d2026"
"""The same in dark mode."""
LINK: Final = "#2a4fc4"
DARK_LINK: Final = "#9db7ff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """The colours of a mail, each ``#rrggbb``; every text in them is legible.

    Attributes:
        page: behind the card that holds the words.
        page_ink: the product's name, on the page.
        page_pale: the small print, on the page.
        accent: of the button.
        on_accent: the button's words.
        link: other links, on the card.
        dark_link: the same in dark mode.
        mark: the dot beside the product's name, on the page.
    """

    page: str
    page_ink: str
    page_pale: str
    accent: str
    on_accent: str
    link: str
    dark_link: str
    mark: str


@lru_cache(maxsize=256)
def palette(accent: str, page: str) -> Palette:
    """The colours that follow from two chosen ones; what could not be read is replaced by what can.

    Args:
        accent: the product's own colour, ``#rrggbb``.
        page: what lies behind the card, ``#rrggbb``.
    """
    page_ink = first_readable(page, INK, WHITE, BLACK)
    return Palette(
        page=page,
        page_ink=page_ink,
        page_pale=first_readable(page, PALE_INK, page_ink),
        accent=accent,
        on_accent=first_readable(accent, WHITE, INK, BLACK),
        link=first_readable(CARD, accent, LINK),
        dark_link=first_readable(DARK_CARD, accent, DARK_LINK),
        mark=accent if contrast(accent, page) >= VISIBLE else page_ink,
    )


def first_readable(behind: str, *candidates: str) -> str:
    """The first colour that is legible on another; the last one if none is."""
    return next((each for each in candidates if contrast(each, behind) >= LEGIBLE), candidates[-1])


def contrast(one: str, other: str) -> float:
    """The contrast of two colours ``#rrggbb``, from 1 (the same) to 21 (black and white)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    """How light it is, from 0 to 1 (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance)."""
    red, green, blue = (_linear(int(colour[place : place + 2], 16) / 255) for place in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    if channel <= 0.04045:  # noqa: PLR2004 -- the definition's
        return channel / 12.92
    result: float = ((channel + 0.055) / 1.055) ** 2.4
    return result
