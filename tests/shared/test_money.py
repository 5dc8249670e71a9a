"""Amounts of money for people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.money import format_amount


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (1200, "eur", "12.00 EUR"),
        (5, "usd", "0.05 USD"),
        (0, "usd", "0.00 USD"),
        (-250, "usd", "-2.50 USD"),
        (500, "jpy", "500 JPY"),
        (500, "KRW", "500 KRW"),
        (5120, "kwd", "5.120 KWD"),
        (500, "isk", "5 ISK"),
        (123400, "ugx", "1234 UGX"),
        (1234567, "huf", "12345.67 HUF"),
    ],
)
def test_an_amount_has_the_decimals_of_its_currency(amount: int, currency: str, text: str) -> None:
    assert format_amount(amount, currency) == text


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (123456789, "eur", "1,234,567.89 EUR"),
        (-123456, "usd", "-1,234.56 USD"),
        (1234, "jpy", "1,234 JPY"),
        (1234567, "kwd", "1,234.567 KWD"),
        (123400, "ugx", "1,234 UGX"),
    ],
)
def test_thousands_are_separated_if_wanted(amount: int, currency: str, text: str) -> None:
    assert format_amount(amount, currency, thousands=",") == text


@given(st.integers(0, 10**12), st.sampled_from(["usd", "jpy", "bhd", "isk"]))
def test_no_digit_of_an_amount_is_lost(amount: int, currency: str) -> None:
    number = format_amount(amount, currency).split()[0]
    assert int(number.replace(".", "")) in (amount, amount // 100)
