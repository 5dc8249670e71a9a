from hypothesis import given
from hypothesis import strategies as st

from shared.mail import MAX_REPLY_CHARACTERS, redact_addresses


def test_addresses_are_redacted_in_any_brackets() -> None:
    reply = "550 <Ada@example.com>: (ada@example.com) bounced to bob+tag@sub.example.org;host mx"
    assert redact_addresses(reply) == "550 <<address>>: (<address>) bounced to <address>;host mx"


def test_a_known_address_is_redacted_as_the_recipient() -> None:
    assert redact_addresses('550 "odd one"@example.com', address='"odd one"@EXAMPLE.com') == "550 <recipient>"


@given(st.text())
def test_a_redacted_reply_is_short_printable_and_free_of_addresses(reply: str) -> None:
    redacted = redact_addresses(reply)
    assert len(redacted) <= MAX_REPLY_CHARACTERS
    assert redacted.isascii()
    assert not redacted or redacted.isprintable()
    assert "a@b" not in redact_addresses(f"{reply} a@b")
