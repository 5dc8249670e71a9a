"""How is an amount of money written for people? Stripe counts in minor units, of which not every currency has 100."""

from __future__ import annotations

from typing import Final

NO_DECIMALS: Final = frozenset(
    "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split()  # noqa: SIM905 -- readable as a list
)
"""An amount of 500 is 500 of these (https://docs.stripe.com/currencies#zero-decimal)."""
THREE_DECIMALS: Final = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
"""An amount of 5120 is 5.120 of these (https://docs.stripe.com/currencies#three-decimal)."""
HUNDREDS_WITHOUT_DECIMALS: Final = frozenset({"isk", "ugx"})
"""They have no decimals, and Stripe counts them in hundredths all the same: 500 is 5
(https://docs.stripe.com/currencies#special-cases)."""


def written(amount: int, currency: str) -> str:
    """An amount with its currency: ``12.00 EUR``, ``500 JPY``.

    Args:
        amount: in minor units as Stripe counts them, negative ones too.
        currency: three letters.
    """
    code = currency.lower()
    decimals = 0 if code in NO_DECIMALS else 3 if code in THREE_DECIMALS else 2
    whole, rest = divmod(abs(amount), 10**decimals)
    if decimals and not (code in HUNDREDS_WITHOUT_DECIMALS and rest == 0):
        number = f"{whole}.{rest:0{decimals}}"
    else:
        number = str(whole)
    return f"{'-' if amount < 0 else ''}{number} {currency.upper()}"
