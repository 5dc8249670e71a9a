"""Amounts of money in minor units, as Stripe counts them, and their form for people."""

from __future__ import annotations

from typing import Final, Literal

ZERO_DECIMAL: Final = frozenset(
    "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split()  # noqa: SIM905 -- readable as a list
)
"""Currencies whose minor unit is the unit itself: 500 is 500 (https://docs.stripe.com/currencies#zero-decimal)."""
THREE_DECIMAL: Final = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
"""Currencies with 1000 minor units: 5120 is 5.120 (https://docs.stripe.com/currencies#three-decimal)."""
ZERO_DECIMAL_IN_HUNDREDTHS: Final = frozenset({"isk", "ugx"})
"""Currencies without decimals that Stripe counts in hundredths nevertheless: 500 is 5
(https://docs.stripe.com/currencies#special-cases)."""


def currency_decimals(currency: str) -> int:
    """The number of decimals of a currency as Stripe counts them: 0, 2 or 3."""
    code = currency.lower()
    return 0 if code in ZERO_DECIMAL else 3 if code in THREE_DECIMAL else 2


def format_amount(amount: int, currency: str, *, thousands: Literal["", ","] = "") -> str:
    """An amount for people, ``12.00 EUR`` or ``500 JPY``, from minor units as Stripe counts them; may be negative.

    ``thousands`` separates groups of three digits: ``1,234.50 EUR``.
    """
    code, decimals = currency.lower(), currency_decimals(currency)
    whole, rest = divmod(abs(amount), 10**decimals)
    if decimals and not (code in ZERO_DECIMAL_IN_HUNDREDTHS and rest == 0):
        number = f"{whole:{thousands}}.{rest:0{decimals}}"
    else:
        number = f"{whole:{thousands}}"
    return f"{'-' if amount < 0 else ''}{number} {currency.upper()}"
