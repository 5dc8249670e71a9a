import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mailer.mails.addresses import UnusableAddress, usable_address


@pytest.mark.parametrize(
    ("address", "usable"),
    [
        ("Person+tag@Example.com", "Person+tag@example.com"),
        ("o'brien@example.co.uk", "o'brien@example.co.uk"),
        ("person@bücher.example", "person@xn--bcher-kva.example"),
        ("пошта@example.com", "пошта@example.com"),
        ("a@b.local", "a@b.local"),
        ("person@beak.test", "person@beak.test"),
    ],
)
def test_address_is_normalised_for_mail_servers(address: str, usable: str) -> None:
    assert usable_address(address) == usable


@given(st.text())
def test_usable_address_contains_no_delimiters(text: str) -> None:
    for address in (text, f"{text}@example.com", f"person@{text}", f"person@example.com{text}"):
        try:
            usable = usable_address(address)
        except UnusableAddress:
            continue
        else:
            assert not set(usable) & set(' \t\r\n\0<>,;:\\"()[]')
            assert usable.count("@") == 1
