from hypothesis import given
from hypothesis import strategies as st

from shared.redaction import LONGEST, scrubbed


def test_addresses_are_left_out_however_they_are_wrapped() -> None:
    said = "550 <Ada@example.com>: (ada@example.com) bounced to bob+tag@sub.example.org;host mx"
    assert scrubbed(said) == "550 <<address>>: (<address>) bounced to <address>;host mx"


def test_a_known_address_is_named_as_the_recipient() -> None:
    assert scrubbed('550 "odd one"@example.com', address='"odd one"@EXAMPLE.com') == "550 <recipient>"


@given(st.text())
def test_what_is_left_is_printable_bounded_and_without_an_at_between_words(said: str) -> None:
    left = scrubbed(said)
    assert len(left) <= LONGEST
    assert left.isascii()
    assert not left or left.isprintable()
    assert "a@b" not in scrubbed(f"{said} a@b")
