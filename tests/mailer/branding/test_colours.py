import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mailer.branding.colours import CARD, DARK_CARD, MIN_TEXT_CONTRAST, contrast, palette

COLOUR = st.integers(0, 0xFFFFFF).map("#{:06x}".format)


@given(accent=COLOUR, page=COLOUR)
def test_every_text_is_legible_with_any_colours(accent: str, page: str) -> None:
    colours = palette(accent, page)
    assert contrast(colours.on_accent, colours.accent) >= MIN_TEXT_CONTRAST
    assert contrast(colours.page_ink, colours.page) >= MIN_TEXT_CONTRAST
    assert contrast(colours.page_pale, colours.page) >= MIN_TEXT_CONTRAST
    assert contrast(colours.link, CARD) >= MIN_TEXT_CONTRAST
    assert contrast(colours.dark_link, DARK_CARD) >= MIN_TEXT_CONTRAST


def test_contrast_follows_the_definition_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert palette("#ffd400", "#10223a").on_accent == "#16181d"
