"""Which language somebody gets of those that there are."""

import pytest

from shared.locales import best


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["zh-Hant-TW"], "zh-hant"),
        (["DE_at"], "de"),
        (["de-x-private"], "de"),
        (["pt", "fr"], "fr"),
        ([None, ""], "en"),
        (["x"], "en"),
    ],
)
def test_the_best_language_is_looked_up(wanted: list[str | None], found: str) -> None:
    assert best(wanted, {"en", "de", "fr", "zh-hant"}) == found
