"""Which languages a browser asks for; whatever else it says is passed over."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.accept_language import MOST, accepted, language_tag


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("", ()),
        ("de", ("de",)),
        ("gsw-CH, de-CH;q=0.9, de;q=0.8, en;q=0.5", ("gsw-CH", "de-CH", "de", "en")),
        ("en;q=0.5,fr;q=0.9 , it", ("it", "fr", "en")),
        ("en;q=0.7,fr;q=0.7", ("en", "fr")),
        ("fr;q=0, de;q=0.000, *;q=0.1, es ; q=1.000", ("es",)),
        ("zh-Hant-TW", ("zh-Hant-TW",)),
        ("DE-at;Q=0.4", ("DE-at",)),
        ("de;q=2, de;q=-1, de;q=a, de;q=0.1234, fr;q=0.5;x=1", ()),
        ("'; drop table, {$gt: 1}, a, en us, ../x, \u00e4\u00f6, ,,", ()),
        ("a-b-c-d-e-f-g, en", ("en",)),
        (", ".join(f"{chr(97 + number)}a" for number in range(20)), tuple(f"{chr(97 + n)}a" for n in range(MOST))),
    ],
)
def test_the_languages_asked_for_are_read_the_dearest_first(header: str, tags: tuple[str, ...]) -> None:
    assert accepted(header) == tags


@given(header=st.text(max_size=200) | st.lists(st.sampled_from([*"aq0;=,. -*"]), max_size=80).map("".join))
def test_any_header_is_advice_and_no_fault(header: str) -> None:
    found = accepted(header)
    assert len(found) <= MOST
    assert all(language_tag(tag) == tag for tag in found)


def test_a_header_without_end_is_read_at_once() -> None:
    began = time.process_time()
    for header in ("a" * 16_000, "," * 16_000, "de;q=0.1," * 2_000, "-" * 16_000, "de" + " " * 16_000 + "x"):
        accepted(header)
    assert time.process_time() - began < 0.5
