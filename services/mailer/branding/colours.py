"""Colours of a mail: contrast as defined by WCAG 2, and a legible palette derived from two chosen colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

MIN_TEXT_CONTRAST: Final = 4.5
"""Minimum contrast of text against its background (WCAG 2.2, success criterion 1.4.3, level AA)."""
MIN_GRAPHIC_CONTRAST: Final = 3.0
"""Minimum contrast of a graphic (success criterion 1.4.11)."""
WHITE: Final = "#ffffff"
BLACK: Final = "#000000"
INK: Final = "#16181d"
PALE_INK: Final = "#5d6470"
CARD: Final = WHITE
"""Background of a mail's content."""
DARK_CARD: Final = "#1d2026"
"""Background of a mail's content in dark mode."""
LINK: Final = "#2a4fc4"
DARK_LINK: Final = "#9db7ff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Colours of a mail, each ``#rrggbb``; every text is legible.

    Attributes:
        page: the background around the card that holds the content.
        page_ink: the product's name, on the page.
        page_pale: the small print, on the page.
        accent: the button.
        on_accent: the button's label.
        link: other links, on the card.
        dark_link: other links in dark mode.
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
    """Derive a palette from the product's colour and the background around the card, both ``#rrggbb``.

    A colour that would be illegible is replaced by a legible one.
    """
    page_ink = first_legible(page, INK, WHITE, BLACK)
    return Palette(
        page=page,
        page_ink=page_ink,
        page_pale=first_legible(page, PALE_INK, page_ink),
        accent=accent,
        on_accent=first_legible(accent, WHITE, INK, BLACK),
        link=first_legible(CARD, accent, LINK),
        dark_link=first_legible(DARK_CARD, accent, DARK_LINK),
        mark=accent if contrast(accent, page) >= MIN_GRAPHIC_CONTRAST else page_ink,
    )


def first_legible(background: str, *candidates: str) -> str:
    """Return the first colour that is legible on a background; the last candidate if none is."""
    return next((each for each in candidates if contrast(each, background) >= MIN_TEXT_CONTRAST), candidates[-1])


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours ``#rrggbb``, from 1 (equal) to 21 (black and white)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    """Return the relative luminance, from 0 to 1 (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance)."""
    red, green, blue = (_linear(int(colour[start : start + 2], 16) / 255) for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    if channel <= 0.04045:  # noqa: PLR2004 -- the threshold in the definition
        return channel / 12.92
    result: float = ((channel + 0.055) / 1.055) ** 2.4
    return result
